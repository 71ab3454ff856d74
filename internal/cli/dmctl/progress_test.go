package dmctl

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

func TestSum(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	running := client.Movement{ID: "r", State: client.Running, Percent: percent(50), ElapsedSeconds: 3, Rate: "1 GiB/s", LastMessage: "r", LastMessageTime: &early}
	newest := client.Movement{ID: "n", State: client.Running, Percent: percent(10), ElapsedSeconds: 75, LastMessage: "n", LastMessageTime: &late}
	pending := client.Movement{ID: "p", State: client.Pending}
	good := client.Movement{ID: "g", State: client.Completed, Result: client.Success, ElapsedSeconds: 4}
	stopped := client.Movement{ID: "c", State: client.Completed, Result: client.Cancelled, Percent: percent(20)}
	strange := client.Movement{ID: "s", State: client.Running, Percent: percent(2000)}
	for name, tt := range map[string]struct {
		all        []client.Movement
		head, tail string
	}{
		"nothing":   {nil, "waiting ", " "},
		"pending":   {[]client.Movement{pending}, "pending         ", " "},
		"running":   {[]client.Movement{running}, "running     50% ", " 4.0s  1 GiB/s  3s left"},
		"long":      {[]client.Movement{newest}, "running     10% ", " 1m16s  11m15s left"},
		"success":   {[]client.Movement{good}, "success    100% ", " 4.0s"},
		"cancelled": {[]client.Movement{stopped}, "cancelled   20% ", " "},
		"strange":   {[]client.Movement{strange}, "running    100% ", " "},
		"two":       {[]client.Movement{good, running}, "1 of 2 ended  75% ", " 4.0s  1 GiB/s  3s left"},
		"newest":    {[]client.Movement{running, newest, good, pending}, "1 of 4 ended  40% ", " 1m16s  11m15s left"},
	} {
		s := sum(tt.all, early)
		// One second after the update, the clock shows one second more.
		if head, tail := s.before(), s.after(early.Add(time.Second)); head != tt.head || tail != tt.tail {
			t.Errorf("%s: %q %q, want %q %q", name, head, tail, tt.head, tt.tail)
		}
	}
}

// The output of a job gets a line for each change of state and for larger progress, not for
// each change.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	l := newLines(&b)
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
	at(3, run(10))                                                       // less than 10 % more
	at(4, run(11))                                                       // 10 % more
	at(33, run(12))                                                      // 29 s without a line
	at(34, run(13))                                                      // 30 s
	at(35, client.Movement{State: client.Cancelling, LastMessage: "x"})  // different state
	at(36, client.Movement{State: client.Completed, LastMessage: "end"}) // the result is printed at the end
	l.Say("said")
	l.Close()
	want := `nnf-dmctl: a: pending
nnf-dmctl: a: running 1%: x\x1b
nnf-dmctl: a: running 11%: x\x1b
nnf-dmctl: a: running 13%: x\x1b
nnf-dmctl: a: cancelling: x
nnf-dmctl: said
`
	if got := b.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestNewProgress(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The tests of the program cover terminals.
	for name, p := range map[string]progress{"file": newProgress(f, "xterm"), "buffer": newProgress(new(bytes.Buffer), "xterm")} {
		if _, ok := p.(*lines); !ok {
			t.Errorf("%s: %T", name, p)
		}
	}
}

func percent(n int32) *int32 { return &n }

func TestSummary(t *testing.T) {
	for want, m := range map[string]client.Movement{
		"a: pending":                        {ID: "a", State: client.Pending},
		"a: pending: no storage":            {ID: "a", State: client.Pending, Message: "no storage\n"},
		"a: running":                        {ID: "a", State: client.Running},
		"a: running 7%, 1.25s, 5 secs left": {ID: "a", State: client.Running, Percent: percent(7), ElapsedSeconds: 1.25, Left: "5 secs"},
		"a: success, 1m30s, 1 GiB":          {ID: "a", State: client.Completed, Result: client.Success, Percent: percent(100), ElapsedSeconds: 90, Data: "1 GiB (1073741824 bytes)", Message: "the output"},
		"a: failed: disk\\x1b[2J":           {ID: "a", State: client.Completed, Result: client.Failure, Message: "disk\x1b[2J"},
		"a: completed":                      {ID: "a", State: client.Completed},
		"a: running, restarted 2×":          {ID: "a", State: client.Running, Restarts: 2},
		"a\\tb: cancelling, 1\\tB, \\a/s":   {ID: "a\tb", State: client.Cancelling, Data: "1\tB", Rate: "\x07/s"},
		"a: running, 1s, 9\\rsecs left":     {ID: "a", State: client.Running, ElapsedSeconds: 1, Left: "9\rsecs"},
	} {
		if got := summary(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTimeLeft(t *testing.T) {
	for _, tt := range []struct {
		m    client.Movement
		want string
	}{
		{client.Movement{State: client.Running, Percent: percent(25), ElapsedSeconds: 10}, "30s"},
		{client.Movement{State: client.Running, Percent: percent(25), ElapsedSeconds: 10, Left: "7 mins"}, "7 mins"},
		{client.Movement{State: client.Running, Percent: percent(1), ElapsedSeconds: 60}, "1h39m0s"},
		{client.Movement{State: client.Running, Percent: percent(0), ElapsedSeconds: 10}, ""},
		{client.Movement{State: client.Running, Percent: percent(100), ElapsedSeconds: 10}, ""},
		{client.Movement{State: client.Running, Percent: percent(-5), ElapsedSeconds: 10}, ""},
		{client.Movement{State: client.Running, Percent: percent(25)}, ""},
		{client.Movement{State: client.Running, ElapsedSeconds: 10}, ""},
		{client.Movement{State: client.Cancelling, Percent: percent(25), ElapsedSeconds: 10}, ""},
		{client.Movement{State: client.Completed, Left: "7 mins"}, ""},
	} {
		if got := timeLeft(tt.m); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.m, got, tt.want)
		}
	}
}
