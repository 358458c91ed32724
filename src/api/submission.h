/*
 * submission.h
 *		What bulk_action_submit checks, for who only wants to look.
 */
#ifndef BULK_ACTION_SUBMISSION_H
#define BULK_ACTION_SUBMISSION_H

#include "postgres.h"

#include "fmgr.h"

#include "stage/jobs.h"

/*
 * The action that a call with these first four arguments (source, action_type,
 * entity_type, options) would submit, after all that submit checks; nothing is
 * written.  In the current memory context.
 */
extern Action *submission_for_preview(FunctionCallInfo fcinfo);

#endif /* BULK_ACTION_SUBMISSION_H */
