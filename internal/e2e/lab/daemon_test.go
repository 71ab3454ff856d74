package lab

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A shell plays the daemon: it speaks on standard error and runs a stand-in.
func TestDaemonIsWatched(t *testing.T) {
	l := newLab(t)
	script := `echo '{"msg":"mounted","path":"/x"}' >&2; echo plain "$NOTIFY_SOCKET" "$WATCHDOG_USEC" >&2
		trap 'echo hup >&2' HUP; trap 'exit 7' TERM; lvs --nolock; while :; do sleep 0.01; done`
	d, err := l.StartDaemon(DaemonOptions{Binary: "/bin/sh", Args: []string{"-c", script}, Watchdog: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.WaitLog(soon(t), func(ll LogLine) bool { return ll.Fields["msg"] == "mounted" })
	if err != nil || line.Fields["path"] != "/x" {
		t.Errorf("%+v %v", line, err)
	}
	line, err = d.WaitLog(soon(t), func(ll LogLine) bool { return strings.HasPrefix(ll.Text, "plain") })
	f := strings.Fields(line.Text)
	if err != nil || len(f) != 3 || f[2] != "1000000" || line.Fields != nil {
		t.Fatalf("%+v %v", line, err)
	}
	if c, err := l.WaitCall(soon(t), func(c Call) bool { return c.Tool == "lvs" && c.Exit == 0 }); err != nil || c.PPID != d.PID {
		t.Errorf("%+v %v", c, err)
	}
	conn, err := net.Dial("unixgram", f[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"STATUS=starting", "READY=1\nSTATUS=1 mounted"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if took, err := d.WaitReady(soon(t)); err != nil || took <= 0 || took > time.Minute {
		t.Errorf("%v %v", took, err)
	}
	last := d.Notices()[len(d.Notices())-1]
	if v, ok := last.Value("STATUS"); !ok || v != "1 mounted" {
		t.Errorf("%+v", last)
	}
	if err := d.Hup(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WaitLog(soon(t), func(ll LogLine) bool { return ll.Text == "hup\n" }); err != nil {
		t.Error(err)
	}
	if u, err := d.Usage(); err != nil || u.RSS < 100_000 || u.Anonymous <= 0 || u.Anonymous > u.RSS || u.Switches() <= 0 || u.Threads != 1 {
		t.Errorf("%+v %v", u, err)
	}
	for _, s := range l.strays() { // the shell's sleep may be there at the moment, or be about to become it
		if !strings.HasPrefix(s.Command, "sleep") && s.Command != "sh" {
			t.Errorf("a daemon that is held is no leftover: %+v", s)
		}
	}
	if err := d.Term(); err != nil {
		t.Fatal(err)
	}
	if code, err := d.Wait(soon(t)); code != 7 || err != nil {
		t.Errorf("code %d %v", code, err)
	}
	d, err = l.StartDaemon(DaemonOptions{Binary: "/bin/sleep", Args: []string{"1000"}, NoNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Kill9()
	if code, err := d.Wait(soon(t)); code != 128+int(unix.SIGKILL) || err != nil {
		t.Errorf("code %d %v", code, err)
	}
}

func TestListeners(t *testing.T) {
	none, err := listeners(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	one, err := listeners(os.Getpid())
	if err != nil || len(one) != len(none)+1 || !slices.ContainsFunc(one, func(a string) bool { return strings.HasPrefix(a, "0100007F:") }) {
		t.Errorf("%q then %q, %v", none, one, err)
	}
}

func TestMissingDaemonSaysWhatToDo(t *testing.T) {
	l := newLab(t)
	t.Setenv("CLIENTMOUNTD", "")
	t.Chdir(t.TempDir())
	if _, err := l.StartDaemon(DaemonOptions{}); err == nil {
		t.Error("a daemon from nowhere")
	}
	t.Setenv("CLIENTMOUNTD", "/nonexistent")
	if _, err := l.StartDaemon(DaemonOptions{}); err == nil || !strings.Contains(err.Error(), "CLIENTMOUNTD") {
		t.Errorf("%v", err)
	}
}
