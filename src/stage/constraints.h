/*
 * constraints.h
 *		Deferred constraints, statement by statement.
 */
#ifndef BULK_ACTION_CONSTRAINTS_H
#define BULK_ACTION_CONSTRAINTS_H

/*
 * Finds out what has to be known, before the first statement of a transaction:
 * looking into the catalogs in the middle would show what others change there.
 */
extern void constraints_prepare(void);

/* Runs deferred constraint triggers now; what comes next may be deferred again. */
extern void constraints_check_deferred(void);

#endif /* BULK_ACTION_CONSTRAINTS_H */
