package screen

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

// A job's output gets a line for what a reader wants to know, not for each beat.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	l := newLines(&b, "p")
	l.now = func() time.Time { return now }
	at := func(seconds int, m client.Movement) {
		now = time.Unix(int64(seconds), 0)
		m.ID = "a"
		l.Show([]client.Movement{m})
	}
	run := func(n int32) client.Movement {
		return client.Movement{State: client.Running, Percent: percent(n), LastMessage: "x\x1b\n"}
	}
	at(0, client.Movement{State: client.Pending})
	at(1, client.Movement{State: client.Pending})
	at(2, run(1))
	at(3, run(10))                                                       // no tenth more
	at(4, run(11))                                                       // a tenth
	at(33, run(12))                                                      // 29 s of silence
	at(34, run(13))                                                      // 30 s
	at(35, client.Movement{State: client.Cancelling, LastMessage: "x"})  // another state
	at(36, client.Movement{State: client.Completed, LastMessage: "end"}) // the answer says it
	l.Say("said")
	l.Close()
	want := `p: a: pending
p: a: running 1%: x\x1b
p: a: running 11%: x\x1b
p: a: running 13%: x\x1b
p: a: cancelling: x
p: said
`
	if got := b.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestNewFollower(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The tests on a terminal are those of the program.
	for name, follower := range map[string]Follower{"file": NewFollower(f, "p", "xterm"), "buffer": NewFollower(new(bytes.Buffer), "p", "xterm")} {
		if _, ok := follower.(*lines); !ok {
			t.Errorf("%s: %T", name, follower)
		}
	}
}
