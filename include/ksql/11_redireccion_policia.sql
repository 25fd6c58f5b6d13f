-- The police get the alerts that can wait and ask for them.
CREATE STREAM Redireccion_Policia
WITH (KAFKA_TOPIC = 'T3.5_Policia', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE cuerpo_necesario = 'Policia'
EMIT CHANGES;
