-- Alerts that can wait, when it is clear what to do with them: a mild or moderate degree, a plain yes or
-- no about the doctor, and somebody to go (a doctor, or a body that has a topic T3.x of its own).
-- New columns are added at the end: ksqlDB replaces a query with them nowhere else.
CREATE STREAM Redireccion_No_Urgencias
WITH (KAFKA_TOPIC = 'T3_No_Urgencias', VALUE_FORMAT = 'JSON') AS
SELECT
  id_aviso,
  EXTRACTJSONFIELD(texto, '$.tipo_emergencia') AS tipo_emergencia,
  EXTRACTJSONFIELD(texto, '$.grado') AS grado,
  EXTRACTJSONFIELD(texto, '$.cuerpo_necesario') AS cuerpo_necesario,
  EXTRACTJSONFIELD(texto, '$.localizacion') AS localizacion,
  EXTRACTJSONFIELD(texto, '$.fecha') AS fecha,
  EXTRACTJSONFIELD(texto, '$.requiere_medico') AS requiere_medico,
  EXTRACTJSONFIELD(texto, '$.contacto') AS contacto,
  EXTRACTJSONFIELD(texto, '$.id_ejecucion') AS id_ejecucion,
  EXTRACTJSONFIELD(texto, '$.codigo_provincia') AS codigo_provincia,
  EXTRACTJSONFIELD(texto, '$.latitud') AS latitud,
  EXTRACTJSONFIELD(texto, '$.longitud') AS longitud,
  ROWPARTITION AS t1_particion,
  ROWOFFSET AS t1_offset,
  EXTRACTJSONFIELD(texto, '$.precision_m') AS precision_m,
  EXTRACTJSONFIELD(texto, '$.id_incidente') AS id_incidente
FROM emergencias_stream
WHERE CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.grado'), '') ELSE '' END
  IN ('Leve', 'Moderado')
AND CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.requiere_medico'), '') ELSE '' END
  IN ('Si', 'No')
AND (CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.requiere_medico'), '') ELSE '' END = 'Si'
  OR CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.cuerpo_necesario'), '') ELSE '' END
    IN ('Ambulancia', 'Medicos', 'Bomberos', 'Forestales', 'Guardia Costera', 'Policia',
        'Servicios de emergencia'))
EMIT CHANGES;
