-- The doctors get the alerts that can wait and need an ambulance.
CREATE STREAM Redireccion_Medicos
WITH (KAFKA_TOPIC = 'T3.1_Medicos', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE requiere_medico = 'Si' OR cuerpo_necesario IN ('Ambulancia', 'Medicos')
EMIT CHANGES;
