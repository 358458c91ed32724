# bulk_action - streams huge CSV files from S3 and applies them to tables.
#
#   make                      build bulk_action.so and sql/bulk_action--0.1.sql
#   make install              into the PostgreSQL of PG_CONFIG
#   make unit                 unit tests of the pure layer (no PostgreSQL needed)
#   make installcheck         pg_regress against a running server that preloads bulk_action
#   make format-check         does the formatting hold? (clang-format 14)
#   make format               make it so
#
#   PG_CONFIG=...             another PostgreSQL; WERROR=1 makes every warning an error
#
# script/test runs everything, against servers of its own.

EXTENSION = bulk_action
EXTVERSION = 0.1
MODULE_big = bulk_action
PGFILEDESC = "bulk_action - applies huge CSV files from S3 to tables"

SOURCES = $(sort $(wildcard src/*.c src/*/*.c))
ALL_HEADERS = $(sort $(wildcard src/*.h src/*/*.h))
OBJS = $(SOURCES:.c=.o)

# The install script is put together from one file per group of objects, in the
# order of sql/install/manifest.
INSTALL_SQL = sql/$(EXTENSION)--$(EXTVERSION).sql
MANIFEST = sql/install/manifest
SQL_PARTS = $(addprefix sql/install/,$(shell sed -e 's/\#.*//' $(MANIFEST) 2>/dev/null))
DATA = $(sort $(wildcard sql/$(EXTENSION)--*--*.sql))
DATA_built = $(INSTALL_SQL)

REGRESS = $(patsubst sql/%.sql,%,$(filter-out sql/$(EXTENSION)--%,$(sort $(wildcard sql/*.sql))))

PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -std=c11 -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter \
	-Wno-missing-field-initializers -Wno-sign-compare -MMD -MP
SHLIB_LINK = -lcsv -lcurl -lcrypto -lz -lzstd

ifneq (,$(findstring clang,$(CC)))
# PostgreSQL was configured with gcc and hands down options that clang does not know.
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
	-Wno-ignored-attributes
endif
ifeq ($(WERROR),1)
PG_CFLAGS += -Werror
endif

EXTRA_CLEAN = $(OBJS:.o=.d)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)

# Bitcode for inlining buys nothing here and doubles the build.
override with_llvm := no
include $(PGXS)

# header dependencies, written by -MMD
-include $(OBJS:.o=.d)

# A changed Makefile may mean changed flags.
$(OBJS): Makefile

$(INSTALL_SQL): $(MANIFEST) $(SQL_PARTS) Makefile
	@[ -n "$(strip $(SQL_PARTS))" ] || { echo "$(MANIFEST) names no file" >&2; exit 1; }
	{ printf '%s\n' '\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	  for part in $(SQL_PARTS); do echo; cat "$$part" || exit 1; done; } >$@.tmp
	mv $@.tmp $@

CLANG_FORMAT ?= clang-format
FORMATTED = $(SOURCES) $(ALL_HEADERS) $(sort $(wildcard test/unit/*.c test/unit/*.h test/fuzz/*.c test/injection/*.c test/cost/*.c))

.PHONY: unit format format-check
unit:
	$(MAKE) -C test/unit check

format-check:
	$(CLANG_FORMAT) --dry-run --Werror $(FORMATTED)
	@for file in $(FORMATTED); do expand -t 4 "$$file" \
	  | awk -v file="$$file" 'length > 120 { print file ":" NR ": line of " length " columns"; bad = 1 } \
	    END { exit bad }' || failed=1; done; [ -z "$$failed" ]

format:
	$(CLANG_FORMAT) -i $(FORMATTED)
