-- A person looks at every alert that is neither urgent (T2) nor clearly not urgent (T3), with the reason
-- and the text as received. The last condition is the literal complement of those of T2 and T3: change
-- them together, or alerts are lost or doubled.
CREATE STREAM Revision_Manual
WITH (KAFKA_TOPIC = 'T4_Revision_manual', VALUE_FORMAT = 'JSON') AS
SELECT
  id_aviso,
  CASE
    WHEN NOT IS_JSON_STRING(texto) THEN 'JSON no valido'
    WHEN JSON_KEYS(texto) IS NULL THEN 'no es un objeto JSON'
    WHEN COALESCE(EXTRACTJSONFIELD(texto, '$.grado'), '')
      NOT IN ('Urgente', 'Urgencia extrema', 'Leve', 'Moderado') THEN 'grado desconocido'
    WHEN COALESCE(EXTRACTJSONFIELD(texto, '$.requiere_medico'), '')
      NOT IN ('Si', 'No') THEN 'requiere_medico desconocido'
    ELSE 'ningun cuerpo lo atiende'
  END AS motivo,
  'T1_Recepcion_avisos' AS origen,
  texto,
  ROWPARTITION AS t1_particion,
  ROWOFFSET AS t1_offset
FROM emergencias_stream
WHERE NOT IS_JSON_STRING(texto)
OR NOT (
  (CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.grado'), '') ELSE '' END
    IN ('Urgente', 'Urgencia extrema'))
  OR
  (CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.grado'), '') ELSE '' END
    IN ('Leve', 'Moderado')
  AND CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.requiere_medico'), '') ELSE '' END
    IN ('Si', 'No')
  AND (CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.requiere_medico'), '') ELSE '' END = 'Si'
    OR CASE WHEN IS_JSON_STRING(texto) THEN COALESCE(EXTRACTJSONFIELD(texto, '$.cuerpo_necesario'), '') ELSE '' END
      IN ('Ambulancia', 'Medicos', 'Bomberos', 'Forestales', 'Guardia Costera', 'Policia',
          'Servicios de emergencia')))
)
EMIT CHANGES;
