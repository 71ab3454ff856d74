package offload

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// story is a history with an API server and calls that a test makes up, on a virtual clock.
type story struct {
	*history
	server  map[string]lab.Object
	version int
}

// movementOf returns a movement for a request of alice.
func movementOf(name string, number int) lab.Object {
	o := fixture.DataMovement("rabbit", name, "compute", "job", "uid-of-job", map[string]any{
		"userId": float64(uids["alice"]), "groupId": float64(uids["alice"]),
		"destination": map[string]any{"path": fixture.Global + destination("alice", "dry", number)},
	})
	o.At("metadata").(map[string]any)["uid"] = "uid of " + name
	o.At("metadata").(map[string]any)["resourceVersion"] = "1"
	return o
}

// put stores an object: the state of the movement name for a request of alice. Its event arrives at once.
func (s *story) put(name string, number int, change func(lab.Object)) lab.Object {
	s.version++
	o := movementOf(name, number)
	if change != nil {
		change(o)
	}
	o.At("metadata").(map[string]any)["resourceVersion"] = fmt.Sprint(s.version)
	s.server[name] = o
	s.observe("MODIFIED", o)
	return o
}

// set stores the state of the movement "m", which belongs to the first request.
func (s *story) set(state, result string, more ...func(lab.Object)) {
	s.put("m", 1, func(o lab.Object) {
		o["status"] = map[string]any{"state": state, "status": result, "startTime": "now"}
		for _, change := range more {
			change(o)
		}
	})
}

func cancelled(o lab.Object) { o.At("spec").(map[string]any)["cancel"] = true }
func removed(o lab.Object)   { o.At("metadata").(map[string]any)["deletionTimestamp"] = "now" }

// remove removes an object.
func (s *story) remove(name string) {
	o := s.server[name]
	delete(s.server, name)
	s.version++
	o.At("metadata").(map[string]any)["resourceVersion"] = fmt.Sprint(s.version)
	s.observe("DELETED", o)
}

// call makes a call of alice with the movement "m"; change sets the response.
func (s *story) call(op string, took time.Duration, change func(*call)) {
	c := &call{user: "alice", op: op, job: "job", name: "m", number: 1, limit: callLimit, result: "SUCCESS"}
	if change != nil {
		change(c)
	}
	s.history.starts(c)
	time.Sleep(took) // virtual
	s.ends(c)
}

// open starts a call without its end.
func (s *story) open(op string) {
	s.history.starts(&call{user: "alice", op: op, job: "job", name: "m", number: 1})
	time.Sleep(time.Millisecond)
}

// answer returns a change of a call that sets the state and the result.
func answer(state, result string) func(*call) {
	return func(c *call) { c.state, c.result = state, result }
}

func wait(seconds int64, state, result string) func(*call) {
	return func(c *call) { c.wait, c.state, c.result = seconds, state, result }
}

// made makes the first request, which succeeds.
func (s *story) made() {
	s.open("create")
	s.put("m", 1, nil)
	s.call("create", time.Millisecond, nil)
}

// Each check finds the sequence that it is for, and none finds anything in a correct sequence.
func TestChecks(t *testing.T) {
	later := time.Minute
	for name, c := range map[string]struct {
		want      string // empty: nothing
		faultless bool
		tell      func(*story)
	}{
		"a copy": {"", true, func(s *story) {
			s.made()
			s.call("status", 0, answer("PENDING", "UNKNOWN_STATUS"))
			s.set("Running", "")
			s.call("status", 0, answer("RUNNING", "UNKNOWN_STATUS"))
			s.call("list", 0, func(c *call) { c.names = []string{"m"} })
			s.call("delete", 0, func(c *call) { c.result = "ACTIVE" })
			s.set("Finished", "Success")
			s.call("status", time.Second, wait(3, "COMPLETED", "SUCCESS"))
			s.set("Finished", "Success", removed)
			s.call("delete", 0, nil)
			s.remove("m")
			s.call("status", 0, answer("UNKNOWN_STATE", "NOT_FOUND"))
			s.finish()
		}},
		"a cancelled copy": {"", true, func(s *story) {
			s.made()
			s.set("Running", "")
			s.open("cancel")
			s.set("Running", "", cancelled)
			s.call("cancel", 0, nil)
			s.call("status", 0, answer("CANCELLING", "UNKNOWN_STATUS"))
			s.set("Finished", "Cancelled", cancelled)
			s.call("status", 0, answer("COMPLETED", "CANCELLED"))
			s.finish()
		}},
		"cancelled before the start": {"", true, func(s *story) {
			s.made()
			s.open("cancel")
			s.put("m", 1, func(o lab.Object) { cancelled(o); removed(o) })
			s.call("cancel", 0, nil)
			s.call("status", 0, answer("COMPLETED", "CANCELLED"))
			s.finish()
		}},
		"events that arrive late": {"", true, func(s *story) {
			s.open("create")
			s.server["m"] = movementOf("m", 1)
			s.call("create", time.Millisecond, nil)
			s.finish()
		}},
		"a cut call whose request was served": {"", true, func(s *story) {
			s.open("create")
			s.put("m", 1, nil)
			s.call("create", 0, func(c *call) { c.code, c.cut = codes.Unavailable, true })
			s.finish()
		}},
		"the end of a job": {"", true, func(s *story) {
			s.made()
			s.jobEnds("job")
			time.Sleep(time.Millisecond)
			s.remove("m")
			s.jobEnded("job")
			s.call("create", 0, func(c *call) { c.number, c.result = 2, "FAILED" })
			s.finish()
		}},

		"two movements": {"2 movements for request 1", true, func(s *story) {
			s.made()
			s.put("n", 1, nil)
		}},
		"a movement without a request": {"no user has requested", true, func(s *story) { s.put("m", 7, nil) }},
		"another user's ID": {"copies as 1002", true, func(s *story) {
			s.open("create")
			s.put("m", 1, func(o lab.Object) { o.At("spec").(map[string]any)["userId"] = float64(uids["bob"]) })
		}},
		"another user's job": {"belongs to the job", true, func(s *story) {
			s.jobStarts("job", "bob")
			s.open("create")
			s.put("m", 1, nil)
		}},
		"accepted and lost": {"there is no such object", true, func(s *story) { s.call("create", 0, nil) }},
		"refused and done": {"was refused, but", true, func(s *story) {
			s.call("create", 0, func(c *call) { c.result, c.bad = "INVALID", true })
			s.put("m", 1, nil)
			s.finish()
		}},
		"refused although valid": {"it is valid", true, func(s *story) { s.call("create", 0, func(c *call) { c.result = "FAILED" }) }},
		"accepted although not valid": {"it is not valid", true, func(s *story) {
			s.open("create")
			s.put("m", 1, nil)
			s.call("create", 0, func(c *call) { c.bad = true })
		}},
		"created after the end of the job": {"its job had ended", true, func(s *story) {
			s.jobEnds("job")
			time.Sleep(time.Millisecond)
			s.jobEnded("job")
			time.Sleep(later)
			s.call("create", 0, nil)
		}},
		"a key with two names": {"an earlier call has returned m", true, func(s *story) { s.made(); s.call("create", 0, func(c *call) { c.name = "n" }) }},
		"the wrong name":       {"m is 1 of alice", true, func(s *story) { s.made(); s.call("create", 0, func(c *call) { c.number = 2 }) }},
		"a changed request": {"the spec of m was changed", true, func(s *story) {
			s.made()
			s.put("m", 1, func(o lab.Object) { o.At("spec").(map[string]any)["source"] = "/etc" })
		}},
		"cancelled by another user": {"has not requested that", true, func(s *story) { s.made(); s.set("Running", "", cancelled) }},
		"deleted by another user":   {"has not requested that", true, func(s *story) { s.made(); s.set("Finished", "Success"); s.remove("m") }},
		"gone without an event": {"no longer exists", true, func(s *story) {
			s.made()
			delete(s.server, "m")
			s.call("status", 0, answer("UNKNOWN_STATE", "NOT_FOUND"))
		}},
		"deleted before its end": {"is deleted in state", true, func(s *story) {
			s.made()
			s.open("delete")
			s.set("Running", "", removed)
		}},

		"completed too early": {"it has not ended", true, func(s *story) { s.made(); s.set("Running", ""); s.call("status", 0, answer("COMPLETED", "SUCCESS")) }},
		"running too early":   {"it was not in that state", true, func(s *story) { s.made(); s.call("status", 0, answer("RUNNING", "UNKNOWN_STATUS")) }},
		"an unknown state":    {"an unknown state", true, func(s *story) { s.made(); s.call("status", 0, answer("UNKNOWN_STATE", "UNKNOWN_STATUS")) }},
		"the wrong result": {"its result is FAILED", true, func(s *story) {
			s.made()
			s.set("Finished", "Failed")
			s.call("status", 0, answer("COMPLETED", "SUCCESS"))
		}},
		"another message": {"its message is", true, func(s *story) {
			s.made()
			s.set("Finished", "Success")
			s.call("status", 0, func(c *call) { c.state, c.message = "COMPLETED", "of another movement" })
		}},
		"not cancelled": {"has not cancelled it", true, func(s *story) {
			s.made()
			s.set("Running", "")
			s.call("status", 0, answer("CANCELLING", "UNKNOWN_STATUS"))
		}},
		"backwards": {"the state was already RUNNING", false, func(s *story) {
			s.made()
			s.set("Running", "")
			s.call("status", time.Millisecond, answer("RUNNING", "UNKNOWN_STATUS"))
			time.Sleep(time.Second)
			s.call("status", 0, answer("PENDING", "UNKNOWN_STATUS"))
		}},
		"a result that changes": {"the result of m was reported as CANCELLED", true, func(s *story) {
			s.made()
			s.set("Running", "")
			time.Sleep(time.Second)
			s.open("cancel")
			s.set("Running", "", cancelled, removed)
			s.call("status", 0, answer("COMPLETED", "CANCELLED"))
			s.set("Finished", "Success", cancelled, removed)
			s.finish()
		}},
		"cancelled before the start, but it ran": {"it has not ended", true, func(s *story) {
			s.made()
			s.set("Running", "")
			time.Sleep(time.Second)
			s.open("cancel")
			s.set("Running", "", cancelled, removed)
			s.call("status", 0, answer("COMPLETED", "CANCELLED"))
		}},
		"a start after the cancel": {"", true, func(s *story) {
			s.made()
			s.open("cancel")
			s.set("Running", "", cancelled, removed)
			s.call("status", 0, answer("COMPLETED", "CANCELLED"))
			s.set("Finished", "Success", cancelled, removed)
			s.finish()
		}},
		"two results": {"the result was already SUCCESS", true, func(s *story) {
			s.made()
			s.set("Finished", "Success")
			s.call("status", time.Millisecond, answer("COMPLETED", "SUCCESS"))
			s.objects["uid of m"].result = "" // as if the end had not been seen
			s.objects["uid of m"].gone = true
			s.call("status", 0, answer("COMPLETED", "FAILED"))
		}},
		"hidden from its owner": {"it exists", true, func(s *story) { s.made(); time.Sleep(later); s.call("status", 0, answer("UNKNOWN_STATE", "NOT_FOUND")) }},
		"an old state": {"it ended 60.0 s before", true, func(s *story) {
			s.made()
			s.set("Running", "")
			s.set("Finished", "Success")
			time.Sleep(later)
			s.call("status", 0, answer("RUNNING", "UNKNOWN_STATUS"))
		}},

		"a wait that returns early":           {"before its limit", false, func(s *story) { s.made(); s.call("status", time.Second, wait(3, "PENDING", "UNKNOWN_STATUS")) }},
		"a wait without a limit that returns": {"before its limit", false, func(s *story) { s.made(); s.call("status", time.Second, wait(-1, "PENDING", "UNKNOWN_STATUS")) }},
		"a wait that returns early for a restart": {"", false, func(s *story) {
			s.made()
			over := s.disturb()
			s.call("status", time.Second, wait(3, "PENDING", "UNKNOWN_STATUS"))
			over()
		}},
		"a wait that returns late": {"the wait ended late", true, func(s *story) { s.made(); s.call("status", 6*time.Second, wait(3, "PENDING", "UNKNOWN_STATUS")) }},
		"a wait that misses the end": {"it ended 9.0 s before", true, func(s *story) {
			s.made()
			s.set("Finished", "Success")
			s.call("status", 9*time.Second, wait(-1, "COMPLETED", "SUCCESS"))
		}},
		"a call that hangs": {"its deadline was", false, func(s *story) { s.made(); s.call("list", later, func(c *call) { c.names = []string{"m"} }) }},

		"a list with another user's": {"m belongs to alice", true, func(s *story) {
			s.made()
			s.jobStarts("other", "bob")
			s.call("list", 0, func(c *call) { c.user, c.job, c.names = "bob", "other", []string{"m"} })
		}},
		"a list that misses one": {"m is missing", true, func(s *story) { s.made(); time.Sleep(later); s.call("list", 0, nil) }},
		"another user's status": {"it belongs to another user", true, func(s *story) {
			s.made()
			s.call("peek", 0, func(c *call) { c.user, c.result = "bob", "UNKNOWN_STATUS" })
		}},
		"a cancel without effect": {"neither cancelled nor ended", true, func(s *story) { s.made(); s.call("cancel", 0, nil) }},
		"a cancel that fails":     {"a cancel never fails", true, func(s *story) { s.made(); s.call("cancel", 0, func(c *call) { c.result = "FAILED" }) }},
		"a delete without effect": {"it is not deleted", true, func(s *story) { s.made(); s.set("Finished", "Success"); s.call("delete", 0, nil) }},
		"active after the end": {"it had ended", true, func(s *story) {
			s.made()
			s.set("Finished", "Success")
			time.Sleep(later)
			s.call("delete", 0, func(c *call) { c.result = "ACTIVE" })
		}},
		"an unexpected response":         {"an unexpected response", false, func(s *story) { s.made(); s.call("delete", 0, func(c *call) { c.result = "UNKNOWN" }) }},
		"an error of a faultless script": {"the call fails", true, func(s *story) { s.call("list", 0, func(c *call) { c.code = codes.Unavailable }) }},
		"an error on a machine that is too busy": {"", true, func(s *story) {
			s.compare(time.Now(), 2*overload)
			s.call("list", overload, func(c *call) { c.code = codes.Unavailable })
		}},
		"an error while a request takes too long": {"", true, func(s *story) {
			s.asks(time.Now())
			s.call("list", 2*overload, func(c *call) { c.code = codes.Unavailable })
		}},
		"an error after that": {"the call fails", true, func(s *story) {
			s.compare(time.Now().Add(-time.Hour), time.Minute)
			s.call("list", 0, func(c *call) { c.code = codes.Unavailable })
		}},
		"an error while something fails": {"", false, func(s *story) { s.call("list", 0, func(c *call) { c.code = codes.Unavailable }) }},
		"an error without meaning":       {"the call fails", false, func(s *story) { s.call("list", 0, func(c *call) { c.code = codes.Unknown }) }},
		"slow calls": {"the limit is", true, func(s *story) {
			for range least {
				s.call("list", bound+time.Second, nil)
			}
			s.finish()
		}},
		"calls on a slow machine": {"", true, func(s *story) {
			s.compare(time.Now(), time.Second)
			for range least {
				s.call("list", bound+time.Second, nil)
			}
			s.finish()
		}},
		"one slow call": {"", true, func(s *story) {
			for i := range 2 * least {
				s.call("list", map[bool]time.Duration{true: bound + time.Second}[i == 0], nil)
			}
			s.finish()
		}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &story{server: map[string]lab.Object{}}
				s.history = newHistory(uids, c.faultless, func(_ context.Context, name string) (lab.Object, error) { return s.server[name], nil })
				s.jobStarts("job", "alice")
				time.Sleep(time.Second) // times must differ
				c.tell(s)
				if got := strings.Join(s.Problems(), "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) {
					t.Errorf("%q, want %q\n%s", got, c.want, s)
				}
			})
		})
	}
}
