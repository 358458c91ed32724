/*
 * injection.c
 *		Named places at which a test can make something happen.
 */
#include "postgres.h"

#include "fmgr.h"

#include "base/injection.h"

void **injection_function = NULL;

void
injection_install(void)
{
	injection_function = find_rendezvous_variable(INJECTION_RENDEZVOUS);
}
