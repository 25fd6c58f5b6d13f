-- Every alert as received on T1. The value is read as plain text, not as typed columns: a typed JSON
-- stream silently drops a record when one field cannot be read, and then nobody is told about it.
CREATE STREAM emergencias_stream (id_aviso VARCHAR KEY, texto VARCHAR)
WITH (KAFKA_TOPIC = 'T1_Recepcion_avisos', KEY_FORMAT = 'KAFKA', VALUE_FORMAT = 'KAFKA');
