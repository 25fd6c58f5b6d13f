-- The command post gets the urgent alerts that need no ambulance: all that do not ask for one, those with
-- missing or unknown values included.
CREATE STREAM Redireccion_Centro_Mando
WITH (KAFKA_TOPIC = 'T2.2_Centro_de_mando', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_Urgencias
WHERE NOT (requiere_medico = 'Si' OR cuerpo_necesario IN ('Ambulancia', 'Medicos'))
EMIT CHANGES;
