-- The fire brigade gets the alerts that can wait and ask for it.
CREATE STREAM Redireccion_Bomberos
WITH (KAFKA_TOPIC = 'T3.2_Bomberos', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE cuerpo_necesario = 'Bomberos'
EMIT CHANGES;
