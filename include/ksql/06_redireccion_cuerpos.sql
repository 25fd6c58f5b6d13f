-- The body asked for is told too when an urgent alert needs an ambulance and the body is not the medical
-- one (fire brigade, police...). A missing or unknown body counts as not the medical one: better that the
-- desk of the bodies sees an alert for nobody than that nobody sees one for them.
CREATE STREAM Redireccion_Cuerpos
WITH (KAFKA_TOPIC = 'T2.3_Cuerpos_112', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_Urgencias
WHERE (requiere_medico = 'Si' OR cuerpo_necesario IN ('Ambulancia', 'Medicos'))
AND cuerpo_necesario NOT IN ('Ambulancia', 'Medicos')
EMIT CHANGES;
