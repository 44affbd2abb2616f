# Evento::Catalog
#   What the catalogs of a database say of the extension, as lines that can be
#   compared: a database that was upgraded has to have what a fresh one has.
#   Nothing here knows an object of the extension by name, so that whatever is
#   added to the install script and forgotten in the upgrade script is seen.
package Evento::Catalog;

use strict;
use warnings;

# Everything that belongs to the extension, or to something that does: members,
# and what hangs on members (indexes, constraints, triggers, sequences, types).
my $members = <<'SQL';
WITH RECURSIVE member AS (
  SELECT 'pg_extension'::regclass::oid AS classid, oid AS objid FROM pg_extension WHERE extname = 'evento'
  UNION
  SELECT d.classid, d.objid FROM member m JOIN pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype IN ('e', 'i', 'a', 'P', 'S')
   WHERE d.classid <> 'pg_class'::regclass OR (SELECT relkind <> 't' FROM pg_class WHERE oid = d.objid)
), object AS (
  -- The triggers that a foreign key makes are named by number.
  SELECT DISTINCT m.classid, m.objid FROM member m LEFT JOIN pg_trigger t ON m.classid = 'pg_trigger'::regclass AND t.oid = m.objid WHERE t.tgisinternal IS NOT TRUE
)
SQL

# A line: object, property, value.  Values that follow from the order in which
# things were made (OIDs, the order of an ACL, the server's own notes among a
# column's options) are left out or sorted.
my @queries = (
	# Every object with its kind, owner-independent name, comment and initial privileges.
	q{SELECT i.type || ' ' || i.identity, 'is there', '' FROM object o, pg_identify_object(o.classid, o.objid, 0) i},
	q{SELECT i.type || ' ' || i.identity, 'comment', d.description FROM object o JOIN pg_description d ON d.classoid = o.classid AND d.objoid = o.objid, pg_identify_object(o.classid, o.objid, d.objsubid) i},
	q{SELECT i.type || ' ' || i.identity, 'initial privileges', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(p.initprivs) a) FROM object o JOIN pg_init_privs p ON p.classoid = o.classid AND p.objoid = o.objid, pg_identify_object(o.classid, o.objid, p.objsubid) i},
	# The extension itself.
	q{SELECT 'extension', 'version', extversion FROM pg_extension WHERE extname = 'evento'},
	q{SELECT 'extension', 'dumps ' || c.oid::regclass, w FROM pg_extension e, unnest(e.extconfig, e.extcondition) u (c, w) JOIN pg_class c ON c.oid = u.c WHERE e.extname = 'evento'},
	q{SELECT 'schema evento', 'privileges', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(nspacl) a) FROM pg_namespace WHERE nspname = 'evento'},
	q{SELECT 'schema evento', 'default privileges', d.defaclobjtype::text || ' ' || d.defaclacl::text FROM pg_default_acl d},
	# Relations.
	q{SELECT c.relkind::text || ' ' || c.oid::regclass, p.property, p.value FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid LEFT JOIN pg_am m ON m.oid = c.relam LEFT JOIN pg_class t ON t.oid = c.reltoastrelid,
	  LATERAL (VALUES ('persistence', c.relpersistence::text), ('access method', m.amname::text), ('options', (SELECT string_agg(x, ' ' ORDER BY x) FROM unnest(c.reloptions) x)),
	    ('toast options', (SELECT string_agg(x, ' ' ORDER BY x) FROM unnest(t.reloptions) x)), ('toasted', (t.oid IS NOT NULL)::text), ('replica identity', c.relreplident::text),
	    ('row security', c.relrowsecurity::text || c.relforcerowsecurity::text), ('tablespace', c.reltablespace::text), ('partition', c.relispartition::text || COALESCE(pg_get_expr(c.relpartbound, c.oid), '')), ('privileges', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(c.relacl) a)),
	    ('view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END), ('index', CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END)) p (property, value)},
	q{SELECT c.relkind::text || ' ' || c.oid::regclass, 'column ' || row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum) || ' ' || p.property, p.value
	  FROM object o JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid AND c.relkind <> 'i' JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum,
	  LATERAL (VALUES (a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END || ' identity ' || a.attidentity::text || ' generated ' || a.attgenerated::text || ' storage ' || a.attstorage::text || ' compression ' || a.attcompression::text
	      || ' collation ' || COALESCE(a.attcollation::regcollation::text, '') || ' options ' || (SELECT COALESCE(string_agg(x, ' ' ORDER BY x), '') FROM unnest(a.attoptions) x WHERE x NOT LIKE 'pg\_%') || ' statistics ' || COALESCE(a.attstattarget, -1), 'default ' || COALESCE(pg_get_expr(d.adbin, d.adrelid), 'none') || ' privileges ' || COALESCE(a.attacl::text, ''))) p (property, value)},
	q{SELECT 'index ' || i.indexrelid::regclass, 'flags', concat_ws(' ', i.indisunique, i.indisprimary, i.indisexclusion, i.indimmediate, i.indisclustered, i.indisvalid, i.indisready, i.indisreplident) FROM object o JOIN pg_index i ON o.classid = 'pg_class'::regclass AND i.indexrelid = o.objid},
	q{SELECT 'sequence ' || s.seqrelid::regclass, 'is', concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle) FROM object o JOIN pg_sequence s ON o.classid = 'pg_class'::regclass AND s.seqrelid = o.objid},
	# Constraints, triggers, policies, rules, statistics.
	q{SELECT 'constraint ' || c.conname || ' on ' || COALESCE(NULLIF(c.conrelid, 0)::regclass::text, NULLIF(c.contypid, 0)::regtype::text), 'is', concat_ws(' ', c.contype, pg_get_constraintdef(c.oid), c.condeferrable, c.condeferred, c.convalidated) FROM object o JOIN pg_constraint c ON o.classid = 'pg_constraint'::regclass AND c.oid = o.objid},
	q{SELECT 'trigger ' || t.tgname || ' on ' || t.tgrelid::regclass, 'is', t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN object o ON o.classid = 'pg_class'::regclass AND o.objid = t.tgrelid WHERE NOT t.tgisinternal},
	q{SELECT 'policy ' || p.polname || ' on ' || p.polrelid::regclass, 'is', concat_ws(' ', p.polcmd, p.polpermissive, p.polroles::regrole[]::text, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_policy p JOIN object o ON o.classid = 'pg_class'::regclass AND o.objid = p.polrelid},
	q{SELECT 'rule ' || r.rulename || ' on ' || r.ev_class::regclass, 'is', r.ev_enabled::text || ' ' || pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN object o ON o.classid = 'pg_class'::regclass AND o.objid = r.ev_class},
	q{SELECT 'statistics ' || s.stxname, 'is', pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s JOIN object o ON o.classid = 'pg_class'::regclass AND o.objid = s.stxrelid},
	# Functions and types.
	q{SELECT 'function ' || p.oid::regprocedure, x.property, x.value FROM object o JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid,
	  LATERAL (VALUES ('is', CASE WHEN p.prokind = 'a' THEN (SELECT a::text FROM pg_aggregate a WHERE a.aggfnoid = p.oid) ELSE pg_get_functiondef(p.oid) END), ('library', p.probin), ('cost and rows', p.procost || ' ' || p.prorows || ' ' || p.prosupport::text),
	    ('arguments', pg_get_function_arguments(p.oid) || ' gives ' || COALESCE(pg_get_function_result(p.oid), '')), ('behaviour', concat_ws(' ', p.prokind, p.provolatile, p.proparallel, p.prosecdef, p.proleakproof, p.proisstrict, p.proretset)), ('settings', p.proconfig::text),
	    ('privileges', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(p.proacl) a))) x (property, value)},
	q{SELECT 'type ' || format_type(t.oid, NULL), x.property, x.value FROM object o JOIN pg_type t ON o.classid = 'pg_type'::regclass AND t.oid = o.objid,
	  LATERAL (VALUES ('is', concat_ws(' ', t.typtype, t.typcategory, t.typnotnull, format_type(NULLIF(t.typbasetype, 0), t.typtypmod), t.typdefault, NULLIF(t.typcollation, 0)::regcollation)), ('labels', (SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)),
	    ('privileges', (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(t.typacl) a))) x (property, value)},
	q{SELECT 'cast ' || c.castsource::regtype || ' to ' || c.casttarget::regtype, 'is', concat_ws(' ', c.castfunc::regprocedure, c.castcontext, c.castmethod) FROM object o JOIN pg_cast c ON o.classid = 'pg_cast'::regclass AND c.oid = o.objid},
	q{SELECT 'operator ' || p.oid::regoperator, 'is', concat_ws(' ', p.oprcode, p.oprrest, p.oprjoin, p.oprcom::regoperator, p.oprnegate::regoperator, p.oprcanmerge, p.oprcanhash) FROM object o JOIN pg_operator p ON o.classid = 'pg_operator'::regclass AND p.oid = o.objid},
	# What belongs to the cluster.
	q{SELECT 'role ' || r.rolname, 'is', concat_ws(' ', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolconfig) FROM pg_roles r WHERE r.rolname LIKE 'evento%'},
	q{SELECT 'role ' || r.rolname, 'is member of ' || g.rolname, m.admin_option::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname LIKE 'evento%'});

# The lines for a database: a reference to a hash, "object: property" to value.
sub of
{
	my ($node, $db) = @_;
	my %catalog;
	for my $query (@queries)
	{
		my $out = $node->safe_psql($db, "SET search_path = pg_catalog;\n$members SELECT json_build_array(x.a || ': ' || x.b, x.c) FROM ($query) x (a, b, c)");
		for my $line (split /\n/, $out)
		{
			my ($key, $value) = unpack_pair($line);
			# The same trigger or comment may be listed by two queries; a key counts once.
			$catalog{$key} = defined $catalog{$key} && $catalog{$key} ne $value ? "$catalog{$key} | $value" : $value;
		}
	}
	return \%catalog;
}

# Reads '["key", "value"]' as the server writes it.
sub unpack_pair
{
	my ($line) = @_;
	my @parts;
	while ($line =~ /\G[\[, ]*(?:"((?:[^"\\]|\\.)*)"|null)/gc)
	{
		push @parts, $1 // '';
	}
	return @parts;
}

# What differs, in words, a line each; empty where nothing does.
sub differences
{
	my ($has, $wants, $name_has, $name_wants) = @_;
	my @lines;
	for my $key (sort keys %{ { %$has, %$wants } })
	{
		my ($h, $w) = ($has->{$key}, $wants->{$key});
		next if defined $h && defined $w && $h eq $w;
		push @lines, !defined $h ? "only $name_wants has $key" . ($w eq '' ? '' : " = $w") : !defined $w ? "only $name_has has $key" . ($h eq '' ? '' : " = $h") : "$key: $name_has has\n  $h\n$name_wants has\n  $w";
	}
	return @lines;
}

1;
