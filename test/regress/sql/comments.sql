--
-- Every object of the extension, and whether it has a COMMENT.
--
-- Objects without one: none.
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS without_comment
  FROM pg_depend d
 WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'evento')
   AND d.classid <> 'pg_namespace'::regclass
   -- the row types of tables and views stand for these
   AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (
         SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
          WHERE t.oid = d.objid AND (t.typelem <> 0 OR c.relkind <> 'c')))
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
   -- the class of a composite type is its shadow
   AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind = 'c'))
 ORDER BY 1;
-- Comments are sentences.
SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid) AS not_a_sentence
  FROM pg_description d
  JOIN pg_depend e ON e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e'
   AND e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'evento')
 WHERE d.description !~ '^[A-Z].*\.$' AND d.description !~ '[.]\s*$'
 ORDER BY 1;
