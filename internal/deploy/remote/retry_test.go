package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestClosedBeforeLogin(t *testing.T) {
	const reset = "kex_exchange_identification: read: Connection reset by peer"
	for _, tt := range []struct{ name, stderr, want string }{
		{"reset", reset + "\r\nConnection reset by 10.0.0.1 port 22\r\n", reset},
		{"reset, with LogLevel=ERROR", reset + "\r\n", reset},
		{"closed", "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.1 port 22\n", "kex_exchange_identification: Connection closed by remote host"},
		{"IPv6", "kex_exchange_identification: Connection closed by remote host\nConnection closed by fd00::1 port 22\n", "kex_exchange_identification: Connection closed by remote host"},
		{"OpenSSH 7", "ssh_exchange_identification: Connection closed by remote host\n", "ssh_exchange_identification: Connection closed by remote host"},
		{"OpenSSH 7, reset", "ssh_exchange_identification: read: Connection reset by peer\n", "ssh_exchange_identification: read: Connection reset by peer"},
		{"while the banner is sent", "banner exchange: Connection to 10.0.0.1 port 22: Broken pipe\n", "banner exchange: Connection to 10.0.0.1 port 22: Broken pipe"},
		{"the jump host closes the connection", reset + "\nConnection reset by 10.0.0.9 port 22\nkex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n",
			"kex_exchange_identification: Connection closed by remote host"},
		{"a warning first", "Warning: Identity file /x not accessible: No such file or directory.\n" + reset + "\n", reset},

		{"nothing", "", ""},
		{"after the login", "Connection to compute-01 closed by remote host.\n", ""},
		{"closed at an unknown time", "Connection closed by 10.0.0.1 port 22\n", ""},
		{"reset at an unknown time", "Connection reset by 10.0.0.1 port 22\n", ""},
		{"the session breaks", "client_loop: send disconnect: Broken pipe\n", ""},
		{"printed by an ssh on the node", reset + "\nConnection to compute-01 closed by remote host.\n", ""},
		{"the jump host cannot connect", "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\nkex_exchange_identification: Connection closed by remote host\n", ""},
		{"no banner", "kex_exchange_identification: banner line contains invalid characters\n", ""},
		{"timeout during the banner", "Connection timed out during banner exchange\nConnection to 10.0.0.1 port 22 timed out\n", ""},
		{"refused", "ssh: connect to host x port 22: Connection refused\n", ""},
		{"login refused", "root@x: Permission denied (publickey).\n", ""},
		{"quoted in other output", "quote: " + reset + "\n", ""},
	} {
		if got := closedBeforeLogin(tt.stderr); got != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
		if e := failure("x", 255, tt.stderr, false); e.beforeLogin != (tt.want != "") || e.beforeLogin && e.Kind != Unreachable {
			t.Errorf("%s: %+v", tt.name, e)
		}
		if e := failure("x", 255, tt.stderr, true); e.beforeLogin {
			t.Errorf("%s, after an answer: %+v", tt.name, e)
		}
		if e := failure("x", 1, tt.stderr, false); e.beforeLogin {
			t.Errorf("%s, with another exit code: %+v", tt.name, e)
		}
	}
}

// fake is a Shell whose calls run these functions, one after the other.
type fake struct {
	calls []func(stdin io.Reader, stdout io.Writer) error
	at    []time.Time
}

func (f *fake) Run(_ context.Context, _ string, _ Script, stdin io.Reader, stdout io.Writer) error {
	f.at = append(f.at, time.Now())
	return f.calls[min(len(f.at), len(f.calls))-1](stdin, stdout)
}

func drop(io.Reader, io.Writer) error {
	return &Error{Kind: Unreachable, Code: 255, Text: "kex_exchange_identification: read: Connection reset by peer", beforeLogin: true}
}

func echo(stdin io.Reader, stdout io.Writer) error {
	_, err := io.Copy(stdout, stdin)
	return err
}

func TestRetry(t *testing.T) {
	readAndDrop := func(stdin io.Reader, w io.Writer) error {
		_, _ = io.ReadFull(stdin, make([]byte, 2))
		return drop(stdin, w)
	}
	printAndDrop := func(stdin io.Reader, w io.Writer) error { _, _ = io.WriteString(w, "x"); return drop(stdin, w) }
	failed := func(io.Reader, io.Writer) error { return &Error{Kind: Lost, Text: "broke"} }
	type calls = []func(io.Reader, io.Writer) error
	pipe := func() io.Reader { return io.MultiReader(strings.NewReader("hello")) } // it is not an io.Seeker
	for _, tt := range []struct {
		name  string
		calls calls
		stdin func() io.Reader
		want  int // attempts
		out   string
		err   string
	}{
		{"first attempt", calls{echo}, pipe, 1, "hello", ""},
		{"after three attempts", calls{drop, drop, drop, echo}, pipe, 4, "hello", ""},
		{"too many attempts", calls{drop}, pipe, 15, "", "not reachable: kex_exchange_identification: read: Connection reset by peer (15 attempts in "},
		{"another error", calls{drop, failed}, pipe, 2, "", "the connection broke: broke"},
		{"input that can be read again", calls{readAndDrop, echo}, func() io.Reader { return strings.NewReader("hello") }, 2, "hello", ""},
		{"input that cannot be read again", calls{readAndDrop, echo}, pipe, 1, "", "Connection reset by peer"},
		{"something was printed", calls{printAndDrop, echo}, pipe, 1, "x", "Connection reset by peer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{calls: tt.calls}
				var out bytes.Buffer
				err := (&Retry{Shell: f, Attempts: 15}).Run(t.Context(), "x", Script{Text: "true"}, tt.stdin(), &out)
				if len(f.at) != tt.want || out.String() != tt.out || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%d attempts, %q, %v", len(f.at), out.String(), err)
				}
				for i := 1; i < len(f.at); i++ {
					most := min(firstDelay<<(i-1), longestDelay)
					if d := f.at[i].Sub(f.at[i-1]); d < most/2 || d >= most {
						t.Errorf("attempt %d after %v, want %v to %v", i+1, d, most/2, most)
					}
				}
				if e := (*Error)(nil); tt.want == 15 && (!errors.As(err, &e) || !strings.Contains(e.Hint, "MaxStartups")) {
					t.Errorf("%#v", err)
				}
			})
		})
	}
}

// Retry stops after Limit, and when the context is done.
func TestRetryStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		f := &fake{calls: []func(io.Reader, io.Writer) error{func(r io.Reader, w io.Writer) error { wait.Advance(15 * time.Second); return drop(r, w) }}}
		err := (&Retry{Shell: f}).Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard)
		if took := time.Since(started); err == nil || took > 110*time.Second || len(f.at) < 3 {
			t.Errorf("%d attempts in %v, %v", len(f.at), took, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		f = &fake{calls: []func(io.Reader, io.Writer) error{drop}}
		time.AfterFunc(firstDelay/4, func() { cancel(errors.New("enough")) })
		err = (&Retry{Shell: f}).Run(ctx, "x", Script{Text: "true"}, nil, io.Discard)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Interrupted || e.Text != "enough" || len(f.at) != 1 {
			t.Errorf("%v after %d attempts", err, len(f.at))
		}
	})
}

// A goroutine of an earlier attempt that still reads takes nothing from the next attempt.
func TestRetryOldReader(t *testing.T) {
	var old io.Reader
	f := &fake{calls: []func(io.Reader, io.Writer) error{
		func(r io.Reader, w io.Writer) error { old = r; return drop(r, w) },
		func(r io.Reader, w io.Writer) error {
			if n, err := old.Read(make([]byte, 9)); n != 0 || err != io.EOF {
				t.Errorf("%d %v", n, err)
			}
			return echo(r, w)
		},
	}}
	var out bytes.Buffer
	if err := (&Retry{Shell: f}).Run(t.Context(), "x", Script{Text: "true"}, io.MultiReader(strings.NewReader("hello")), &out); err != nil || out.String() != "hello" {
		t.Errorf("%q %v", out.String(), err)
	}
}
