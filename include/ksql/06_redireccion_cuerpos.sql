-- The body asked for is told too when an urgent alert needs an ambulance and the body is not the medical
-- one (fire brigade, police...). Nobody can be told when no body was asked for: a missing one, or an
-- explicit null, which EXTRACTJSONFIELD may give as the text 'null'.
CREATE STREAM Redireccion_Cuerpos
WITH (KAFKA_TOPIC = 'T2.3_Cuerpos_112', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_Urgencias
WHERE (requiere_medico = 'Si' OR cuerpo_necesario IN ('Ambulancia', 'Medicos'))
AND COALESCE(cuerpo_necesario, 'null') NOT IN ('Ambulancia', 'Medicos', 'null')
EMIT CHANGES;
