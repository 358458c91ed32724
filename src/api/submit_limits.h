/*
 * submit_limits.h
 *		Do the limits of account and role allow another action?
 */
#ifndef BULK_ACTION_SUBMIT_LIMITS_H
#define BULK_ACTION_SUBMIT_LIMITS_H

#include "postgres.h"

/* An account or a role with limits that submit has to look at. */
typedef struct SubmitSubject
{
	const char *kind; /* account or role, as in messages */
	const char *name;
	Datum       key;                    /* text of the account, or oid of the role */
	int         submissions_per_minute; /* 0: no limit */
	int         queued_actions;         /* 0: no limit */
} SubmitSubject;

typedef struct SubmitLimits
{
	int           n;
	SubmitSubject subjects[2];
} SubmitLimits;

/*
 * Both inside bookkeeping.  If there are limits, other submitters of the same
 * account or role wait from now on until this transaction has ended; false if
 * there are none.  Then check, which raises an error if another action would be
 * too many.
 */
extern bool submit_limits_lock(Oid user, const char *account_id, SubmitLimits *limits);
extern void submit_limits_check(const SubmitLimits *limits);

#endif /* BULK_ACTION_SUBMIT_LIMITS_H */
