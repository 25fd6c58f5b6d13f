-- The emergency services (civil protection) get the alerts that can wait and ask for them.
CREATE STREAM Redireccion_Servicios_de_emergencia
WITH (KAFKA_TOPIC = 'T3.6_Servicios_de_emergencia', VALUE_FORMAT = 'JSON') AS
SELECT *
FROM Redireccion_No_Urgencias
WHERE cuerpo_necesario = 'Servicios de emergencia'
EMIT CHANGES;
