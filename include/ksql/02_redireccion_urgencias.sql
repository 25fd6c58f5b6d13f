-- The 112 centre gets every urgent alert, whatever else is missing or odd in it.
-- Text that is not JSON counts as an unknown degree here and goes to T4.
-- New columns are added at the end: ksqlDB replaces a query with them nowhere else.
CREATE STREAM Redireccion_Urgencias
WITH (KAFKA_TOPIC = 'T2_Centro_112', VALUE_FORMAT = 'JSON') AS
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
  IN ('Urgente', 'Urgencia extrema')
EMIT CHANGES;
