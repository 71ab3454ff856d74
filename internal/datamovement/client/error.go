package client

import (
	"context"
	"errors"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Kind classifies errors.
type Kind int

// The kinds of errors.
const (
	Failed      Kind = iota // the operation failed
	Invalid                 // the request is invalid
	NotFound                // the workflow or copy does not exist or belongs to another user
	Denied                  // the operation is not allowed
	TimedOut                // the operation took too long
	Interrupted             // the caller's context was cancelled
	Unreachable             // the daemon is not reachable or cannot serve requests
)

// Error is an error for users. Text can contain arbitrary text from the daemon: escape it
// before you print it (package hint does).
type Error struct {
	Kind Kind
	Text string
	err  error
}

func (e *Error) Error() string { return e.Text }

// with returns the error with a hint, unless next is "".
func (e *Error) with(next string) error {
	if next == "" {
		return e
	}
	return hint.Add(e, "%s", next)
}

// Unwrap returns the error of the call.
func (e *Error) Unwrap() error { return e.err }

// hintActivated is the hint if no daemon can be reached.
const hintActivated = "check that it runs: systemctl status nnf-dm.socket"

// hints are the hints for the reasons of version 2.
var hints = map[pb2.ErrorReason]string{
	pb2.ErrorReason_WORKFLOW_NOT_FOUND:       "check DW_WORKFLOW_NAME and DW_WORKFLOW_NAMESPACE; the workflow must be your own",
	pb2.ErrorReason_WORKFLOW_STATE:           "copies can be started only while the job runs",
	pb2.ErrorReason_MOUNT_NOT_FOUND:          "the source must be below a path in DW_JOB_… or DW_PERSISTENT_…",
	pb2.ErrorReason_MOUNT_NOT_READY:          "try again when the storage is mounted",
	pb2.ErrorReason_FILESYSTEM_NOT_SUPPORTED: "use gfs2 or lustre in the #DW directive of the job, or copy_out",
	pb2.ErrorReason_DESTINATION_NOT_FOUND:    "the destination must be in a global Lustre file system",
	pb2.ErrorReason_PROFILE_NOT_FOUND:        "omit --profile to use the site's default",
	pb2.ErrorReason_MOVEMENT_NOT_FOUND:       "run nnf-dmctl list to see the copies of this job on this node",
	pb2.ErrorReason_MOVEMENT_ACTIVE:          "cancel it first: nnf-dmctl cancel --wait",
	pb2.ErrorReason_UNAVAILABLE:              "try again later",
	pb2.ErrorReason_INTERNAL:                 "ask the administrator to check the daemon's log: journalctl -u nnf-dm",
}

// reasonTexts are the texts for the reasons of errors without a message.
var reasonTexts = map[pb2.ErrorReason]string{
	pb2.ErrorReason_INVALID_FIELD:            "the request is invalid",
	pb2.ErrorReason_WORKFLOW_NOT_FOUND:       "the workflow does not exist",
	pb2.ErrorReason_WORKFLOW_STATE:           "the workflow is not in state PreRun with status Completed",
	pb2.ErrorReason_MOUNT_NOT_FOUND:          "the source is not in the storage of the workflow",
	pb2.ErrorReason_MOUNT_NOT_READY:          "the storage is not mounted",
	pb2.ErrorReason_FILESYSTEM_NOT_SUPPORTED: "the rabbit cannot copy from this kind of file system",
	pb2.ErrorReason_DESTINATION_NOT_FOUND:    "the destination is not in a global Lustre file system",
	pb2.ErrorReason_PROFILE_NOT_FOUND:        "the profile does not exist",
	pb2.ErrorReason_MOVEMENT_NOT_FOUND:       "the data movement does not exist",
	pb2.ErrorReason_MOVEMENT_ACTIVE:          "the data movement has not ended",
	pb2.ErrorReason_ACCESS_DENIED:            "the site's rules do not allow it",
	pb2.ErrorReason_UNAVAILABLE:              "the daemon is temporarily unable to do this",
	pb2.ErrorReason_LIMIT_EXCEEDED:           "limit exceeded",
	pb2.ErrorReason_TIMEOUT:                  "the request took too long",
	pb2.ErrorReason_CALLER_GONE:              "the caller cancelled the call",
	pb2.ErrorReason_INTERNAL:                 "internal error in the daemon",
}

var kinds = map[codes.Code]Kind{
	codes.InvalidArgument: Invalid, codes.NotFound: NotFound,
	codes.PermissionDenied: Denied, codes.Unauthenticated: Denied,
	codes.DeadlineExceeded: TimedOut, codes.Canceled: Interrupted, codes.Unavailable: Unreachable,
}

// explain returns the *Error for the error of a call, with its hint. It returns nil
// and *Error values unchanged.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	s := status.Convert(err)
	reason, _ := pb2.Reason(err)
	kind, known := kinds[s.Code()]
	e, next := &Error{Kind: kind, Text: textOr(s.Message(), reason), err: err}, hints[reason]
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind = TimedOut
	case errors.Is(err, context.Canceled):
		e.Kind = Interrupted
	case !known:
		e.Kind = Failed
	case kind == Unreachable && reason == pb2.ErrorReason_ERROR_REASON_UNSPECIFIED:
		next = e.unreachable(c.o.Socket, c.ConnectError())
	}
	if s.Code() == codes.Unimplemented {
		e.Text, next = "the process listening on "+c.o.Socket+" does not serve the Copy Offload API", "set --socket or NNF_DM_SOCKET to the socket of nnf-dm"
	}
	return e.with(next)
}

// textOr returns the message, or the text of the reason if the message is empty.
func textOr(message string, reason pb2.ErrorReason) string {
	if strings.TrimSpace(message) != "" {
		return message
	}
	if reasonTexts[reason] != "" {
		return reasonTexts[reason]
	}
	return "the daemon gave no reason"
}

// unreachable sets the text to the cause that dial reports, and returns the hint.
func (e *Error) unreachable(socket string, dial error) (next string) {
	if errors.Is(dial, os.ErrPermission) {
		e.Kind, e.Text = Denied, "no permission to connect to the socket "+socket
		return "check its owner and mode: ls -l " + socket
	}
	if dial != nil {
		e.Text = "cannot reach the daemon: " + dial.Error()
	}
	return hintActivated
}

// problem returns the error of a part of a request.
func problem(p *pb2.Problem) error {
	kind, known := kinds[p.GetReason().Code()]
	if !known {
		kind = Failed
	}
	e := &Error{Kind: kind, Text: textOr(p.GetMessage(), p.GetReason())}
	return e.with(hints[p.GetReason()])
}
