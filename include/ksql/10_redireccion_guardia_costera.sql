-- The coast guard gets the alerts that can wait and ask for it.
CREATE STREAM Redireccion_Guardia_Costera
WITH (KAFKA_TOPIC = 'T3.4_Guardia_Costera', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE cuerpo_necesario = 'Guardia Costera'
EMIT CHANGES;
