package fakedaemon

import (
	"path"
	"strings"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Escapes is a text that would change the title of a terminal, its colours and,
// on some, type a command. A source called "escape" makes the copying command
// write it.
const Escapes = "\x1b]0;owned\x07\x1b[31mred \u009b5n \u202ereversed\xff\r\nnext"

// movement is one request with what becomes of it.
type movement struct {
	uid, batch, source, destination string
	script                          []step
	step                            int
	held                            bool // it does not go on by itself
	cancelling                      bool
}

// step is one status.
type step struct {
	state   pb2.MovementState
	result  pb2.MovementResult
	percent int32
	last    string
	message string
	rate    string
}

const (
	running   = pb2.MovementState_MOVEMENT_STATE_RUNNING
	completed = pb2.MovementState_MOVEMENT_STATE_COMPLETED
	success   = pb2.MovementResult_MOVEMENT_RESULT_SUCCESS
	failed    = pb2.MovementResult_MOVEMENT_RESULT_FAILED
	invalid   = pb2.MovementResult_MOVEMENT_RESULT_INVALID
	cancelled = pb2.MovementResult_MOVEMENT_RESULT_CANCELLED
	deleted   = pb2.MovementResult_MOVEMENT_RESULT_DELETED
)

var half = step{state: running, percent: 50, last: "Copied 1.000 GiB (50%) in 2.000 secs (512.000 MiB/s) 2 secs left ...\n"}

// Stamped is a line of a dcp that writes the time in front. A source called
// "stamped" has it.
const Stamped = "[2026-03-02T08:15:42] Copied 12.250 GiB (49%) in 9.104 secs (1.346 GiB/s) 10 secs left ..."

// scriptOf is what becomes of a request, by the last word of its source.
func scriptOf(source string) (script []step, held bool) {
	pending := step{state: pb2.MovementState_MOVEMENT_STATE_PENDING}
	end := func(result pb2.MovementResult, message string) step {
		return step{state: completed, result: result, message: message, percent: 100, last: "Copied 2.000 GiB (100%) in 4.000 secs (512.000 MiB/s) done\n"}
	}
	good := end(success, "")
	switch word := path.Base(strings.TrimRight(source, "/")); word {
	case "hold":
		return []step{half, good}, true
	case "stubborn":
		return []step{half, good}, true
	case "stamped":
		return []step{{state: running, percent: 49, last: Stamped + "\n"}, good}, true
	case "pending":
		return []step{pending, good}, true
	case "fail":
		return []step{pending, half, end(failed, "exit status 1: disk quota exceeded")}, false
	case "unfit":
		return []step{pending, end(invalid, "no such storage")}, false
	case "cancelled":
		return []step{pending, end(cancelled, "")}, false
	case "deleted":
		return []step{pending, end(deleted, "")}, false
	case "output":
		return []step{half, end(success, "line one\nline two\n")}, false
	case "escape":
		s := half
		s.last = Escapes
		bad := end(failed, Escapes)
		bad.last = Escapes
		return []step{s, bad}, false
	default:
		return []step{pending, half, good}, false
	}
}

func (m *movement) now() step { return m.script[m.step] }

func (m *movement) ended() bool { return m.now().state == completed }

// advance goes one step on, unless it is held.
func (m *movement) advance() {
	if !m.held && m.step < len(m.script)-1 {
		m.step++
	}
}

// cancel makes the end the next step.
func (m *movement) cancel() {
	if m.ended() || m.cancelling {
		return
	}
	s := m.now()
	s.state = pb2.MovementState_MOVEMENT_STATE_CANCELLING
	m.script = []step{s, {state: completed, result: cancelled, percent: s.percent, last: s.last}}
	m.step, m.held, m.cancelling = 0, path.Base(m.source) == "stubborn", true
}
