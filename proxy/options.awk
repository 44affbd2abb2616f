# options.awk
#   Makes the manual page: in evento-proxy.8.in the line @OPTIONS@ becomes the list of
#   settings, as "evento-proxy --help", the first file, prints it.
#
#   evento-proxy --help | awk -v version=VERSION -f options.awk - evento-proxy.8.in

function roff(text)
{
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	return text ~ /^[.']/ ? "\\&" text : text
}

# "  --setting (default: value)", and the line behind it says what it is.
FNR == NR && /^  --[a-z-]+ \(default: / {
	flag = substr($1, 3)
	value = $0
	sub(/^[^:]*: /, "", value)
	sub(/\)$/, "", value)
	if ((getline said) <= 0)
		exit 1
	sub(/^ +/, "", said)
	list = list ".TP\n.BI \\-\\-" roff(flag) " \" value\"\n" roff(said) "\n.br\nDefault: " roff(value) "\n"
}
FNR == NR { next }

/^@OPTIONS@$/ {
	printf "%s", list
	next
}
{
	gsub(/@VERSION@/, version)
	print
}
