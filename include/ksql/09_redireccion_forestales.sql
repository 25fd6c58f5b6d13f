-- The forest rangers get the alerts that can wait and ask for them.
CREATE STREAM Redireccion_Forestales
WITH (KAFKA_TOPIC = 'T3.3_Forestales', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE cuerpo_necesario = 'Forestales'
EMIT CHANGES;
