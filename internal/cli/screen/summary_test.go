package screen

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

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
		if got := Summary(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestLeft(t *testing.T) {
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
		if got := Left(tt.m); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.m, got, tt.want)
		}
	}
}
