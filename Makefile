# Makefile
#   Builds and installs evento: the extension (by PGXS, into the PostgreSQL that
#   PG_CONFIG names) and evento-proxy (into PREFIX/bin, its systemd unit into
#   PREFIX/lib/systemd/system, manual pages into PREFIX/share/man).
#
#   make                      builds both
#   make install              installs both; DESTDIR, PREFIX, PG_CONFIG as usual
#   make install PROXY=no     installs the extension alone
#   make uninstall            removes what make install has installed
#   make run [ARGS=--once]    plays a demonstration on servers of its own
#   make check [TESTS='…']    runs the tests [JOBS=2: so many files at a time]
#   make check-versions       runs them with other versions of PostgreSQL [VERSIONS='15 17 18']
#   make check-asserts        runs them on a server that checks itself
#   make check-valgrind       runs those in SQL on a server under valgrind
#   make check-docker         runs the compose files of docker/ [RELEASES='bookworm trixie']
#   make chaos [SECONDS=600] [SEED=…]    breaks a cluster at random for so long [KINDS='disk|clock': only so]
#   make fuzz [SECONDS=60]    feeds the proxy's parsers with what libFuzzer makes up, each for so long
#   make bench [BENCH=name]   measures
#   make progress [RUNS=3]    measures how long callers wait for a success while something fails
#   make deb                  builds Debian packages, in build/deb
#   make check-packages       tests them in trees of Debian's releases [RELEASES='bookworm trixie']
#   make deps                 installs what is missing to build, run and test
#
#   WERROR=1 makes warnings errors.

PG_CONFIG ?= pg_config
PREFIX ?= /usr/local
ARGS ?=
TESTS ?=
JOBS ?=
BENCH ?=
RUNS ?= 3
SECONDS ?= $(if $(filter chaos,$(MAKECMDGOALS)),600,60)
SEED ?= random
KINDS ?=
PROXY ?= yes
VERSIONS ?= 15 17 18
RELEASES ?= bookworm trixie

# Where this Makefile lies: objects may go elsewhere (make -C objects -f here/Makefile), as long as there are none here.
here := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" '$(here)/evento.control')

# These work where there is no PostgreSQL yet, and install it.
front_goals := check check-long check-versions check-asserts check-valgrind check-docker check-packages chaos run bench progress fuzz deb deps
goals := $(or $(MAKECMDGOALS),all)

.PHONY: $(front_goals)

ifeq ($(filter-out $(front_goals),$(goals)),)

check:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check
	@exec env TESTS='$(TESTS)' JOBS='$(JOBS)' PG_CONFIG='$(PG_CONFIG)' perl '$(here)/test/lib/check.pl'

check-long:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check
	@exec env TESTS='$(TESTS)' JOBS='$(JOBS)' PG_CONFIG='$(PG_CONFIG)' perl '$(here)/test/lib/check.pl' --long

check-versions:
	@exec env TESTS='$(TESTS)' JOBS='$(JOBS)' VERSIONS='$(VERSIONS)' perl '$(here)/test/lib/check-versions.pl'

check-asserts:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check asserts
	@config=$$(env PG_CONFIG='$(PG_CONFIG)' '$(here)/test/lib/debug-server') || exit; \
	exec env TESTS='$(or $(TESTS),test/regress test/isolation test/tap)' JOBS='$(JOBS)' PG_CONFIG="$$config" perl '$(here)/test/lib/check.pl' --logs=check-asserts --asserts

check-valgrind:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check valgrind
	@config=$$(env PG_CONFIG='$(PG_CONFIG)' '$(here)/test/lib/debug-server') || exit; \
	exec env TESTS='$(or $(TESTS),test/regress test/isolation)' JOBS='$(JOBS)' PG_CONFIG="$$config" perl '$(here)/test/lib/check.pl' --logs=check-valgrind \
		--valgrind="$${config%/install/bin/pg_config}/valgrind.supp"

check-docker:
	@'$(here)/.ci/deps' docker || :
	@exec env TESTS='$(TESTS)' RELEASES='$(RELEASES)' '$(here)/test/docker/check'

chaos:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check
	@exec env TESTS=test/chaos/t/001_chaos EVENTO_CHAOS_SECONDS='$(SECONDS)' EVENTO_CHAOS_SEED='$(SEED)' EVENTO_CHAOS_KINDS='$(KINDS)' PG_CONFIG='$(PG_CONFIG)' \
		perl '$(here)/test/lib/check.pl' --logs=chaos --follow --timeout=$$(($(SECONDS) * 2 + 900))

run:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build run
	@exec env PG_CONFIG='$(PG_CONFIG)' perl '$(here)/test/lib/run.pl' $(ARGS)

bench:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build bench
	@exec env BENCH='$(BENCH)' PG_CONFIG='$(PG_CONFIG)' perl '$(here)/test/bench/bench.pl'

progress:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check
	@exec env TESTS=test/bench/progress.pl RUNS='$(RUNS)' PG_CONFIG='$(PG_CONFIG)' perl '$(here)/test/lib/check.pl' --logs=progress --follow --timeout=3600

fuzz:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build fuzz
	@exec $(MAKE) -C '$(here)/test/fuzz' fuzz SECONDS='$(SECONDS)'

deb:
	@'$(here)/.ci/deps' deb
	@exec '$(here)/debian/build'

check-packages:
	@exec env RELEASES='$(RELEASES)' perl '$(here)/test/packages/check.pl'

deps:
	@env PG_CONFIG='$(PG_CONFIG)' '$(here)/.ci/deps' build check run

else

MODULE_big = evento
OBJS = \
	extension/evento.o \
	extension/append.o \
	extension/batch.o \
	extension/buffer.o \
	extension/catalog.o \
	extension/check.o \
	extension/commit.o \
	extension/consumers.o \
	extension/dbhook.o \
	extension/erase.o \
	extension/heads.o \
	extension/ids.o \
	extension/index.o \
	extension/index_plan.o \
	extension/json.o \
	extension/key_ops.o \
	extension/launcher.o \
	extension/presence.o \
	extension/read.o \
	extension/rows.o \
	extension/sequencer.o \
	extension/shmem.o \
	extension/snapshots.o \
	extension/spill.o \
	extension/stats.o \
	extension/stream_metadata.o \
	extension/streams.o \
	extension/wait.o \
	extension/watermark.o \
	extension/worker.o \
	extension/write.o

EXTENSION = evento
DATA_built = sql/evento--$(EXTVERSION).sql
DATA = $(patsubst $(here)/%,%,$(wildcard $(here)/sql/evento--*--*.sql))

# What the server's own macros and callbacks do not keep to is left out.
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare
PG_CFLAGS += -DEVENTO_VERSION='"$(EXTVERSION)"'
ifeq ($(WERROR),1)
PG_CFLAGS += -Werror
endif

# Of which server the objects are.
server := $(CURDIR)/extension/.server
EXTRA_CLEAN = sql/evento--$(EXTVERSION).sql extension/.server

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error No PGXS found by PG_CONFIG=$(PG_CONFIG). Install the server's development files (Debian: postgresql-server-dev-15), or run "make deps")
endif

ifneq ($(CURDIR),$(here))
ifneq ($(wildcard $(here)/extension/*.o $(here)/sql/evento--$(EXTVERSION).sql),)
$(error $(here) has objects of its own, which would be taken for those of this directory: "make clean" there first)
endif
endif

# Bitcode would serve JIT inlining alone, and wants a clang of the server's version.
override with_llvm = no
include $(PGXS)

$(OBJS): $(wildcard $(here)/extension/*.h $(here)/include/*.h) $(here)/evento.control $(server)

# Where PG_CONFIG names another one than last time, they are made again.
.PHONY: look-at-server
$(server): look-at-server
	@mkdir -p $(@D); said=$$($(PG_CONFIG) --version --pkglibdir --includedir-server --cflags); \
	[ "$$(cat $@ 2>/dev/null)" = "$$said" ] || printf '%s\n' "$$said" >$@

sql/evento--$(EXTVERSION).sql: $(here)/sql/evento.sql $(here)/evento.control
	@mkdir -p sql
	cp $< $@

ifneq ($(PROXY),no)

.PHONY: proxy install-proxy uninstall-proxy clean-proxy

all: proxy
install: install-proxy
uninstall: uninstall-proxy
clean: clean-proxy

proxy:
	$(MAKE) -C '$(here)/proxy' PG_CONFIG='$(PG_CONFIG)' VERSION='$(EXTVERSION)' WERROR='$(WERROR)'

install-proxy: proxy
	$(MAKE) -C '$(here)/proxy' install DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' VERSION='$(EXTVERSION)' WERROR='$(WERROR)'

uninstall-proxy:
	$(MAKE) -C '$(here)/proxy' uninstall DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)'

clean-proxy:
	$(MAKE) -C '$(here)/proxy' clean
	rm -rf '$(here)/build'

endif
endif
