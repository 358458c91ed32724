/*
 * injection.h
 *		Named places at which a test can make something happen.
 *
 * A module of the tests (test/injection) puts a function into the rendezvous
 * variable "bulk_action_injection"; where there is none, as on every server
 * that does not test, a point costs a look at one pointer.
 */
#ifndef BULK_ACTION_INJECTION_H
#define BULK_ACTION_INJECTION_H

#define INJECTION_RENDEZVOUS "bulk_action_injection"

typedef void (*InjectionFunction)(const char *point);

/* The rendezvous variable's place; set by injection_install(), at start-up. */
extern void **injection_function;
extern void   injection_install(void);

/* Points are named "<process or stage>-<moment>"; may be called anywhere outside a spinlock or LWLock. */
#define INJECTION(point) \
	do \
	{ \
		if (injection_function != NULL && *injection_function != NULL) \
			((InjectionFunction) *injection_function)(point); \
	} while (0)

#endif /* BULK_ACTION_INJECTION_H */
