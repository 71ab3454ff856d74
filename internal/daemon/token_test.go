package daemon

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// Each change of the token is one record; a failure is a warning only when half of the time for a
// renewal has passed.
func TestTokenRecords(t *testing.T) {
	var log bytes.Buffer
	p := &Process{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	expires := time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC)
	s := kube.TokenState{Kind: kube.TokenPerNode, Account: "a", File: "/t", Expires: expires, Condition: kube.TokenValid}
	for _, tt := range []struct {
		change func()
		want   string // start of the record; empty: none
	}{
		{func() {}, ""},
		{func() { s.Condition, s.Error, s.Failures = kube.TokenRetrying, "e1", 1 }, `INFO msg="the token cannot be renewed; retrying"`},
		{func() { s.Error, s.Failures = "e2", 2 }, `DEBUG msg="the token cannot be renewed; retrying"`},
		{func() { s.Condition, s.Failures, s.Hint = kube.TokenFailing, 3, "do it" }, `WARN msg="the token cannot be renewed; retrying"`},
		{func() { s.Failures = 4 }, `WARN msg="the token cannot be renewed; retrying"`},
		{func() { s.Condition, s.Error, s.Hint = kube.TokenExpired, "", "run it" }, `ERROR msg="the token has expired"`},
		{func() { s.Hint = "run" }, ""},
		{func() { s.Condition, s.Hint, s.Expires = kube.TokenValid, "", expires.Add(time.Hour) }, ""},
		{func() { s.Renewals, s.Expires = 1, expires.Add(2*time.Hour) }, `INFO msg="the token was renewed"`},
		{func() { s.Unsaved, s.File = "full", "" }, `WARN msg="the renewed token cannot be stored`},
		{func() { s.Failures++ }, ""},
		{func() { s.Unsaved, s.File = "", "/s" }, `INFO msg="the renewed token is stored"`},
	} {
		log.Reset()
		tt.change()
		p.tokenChanged(s)
		if got := log.String(); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 || got != "" && !strings.Contains(got, "event=token-") {
			t.Errorf("%+v\n%swant %s", s, got, tt.want)
		}
	}
}

// recorded is a node on which nnf-dm records the state of its token. Other programs read it.
type recorded struct {
	*testing.T
	root            string
	writer          *TokenRecord
	issued, expires time.Time
}

const moverAccount = "system:serviceaccount:c1:nnf-dm"

func newRecorded(t *testing.T) *recorded {
	r := &recorded{T: t, root: t.TempDir(), issued: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
	r.expires = r.issued.Add(100 * time.Hour)
	for _, dir := range []string{"var/lib", "etc/nnf-dm"} {
		if err := os.MkdirAll(filepath.Join(r.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.writer = RecordOf(r.root, "nnf-dm")
	r.writer.Node = "c1"
	r.install(moverAccount, r.expires)
	return r
}

// install installs a token, as nnf-deploy does.
func (r *recorded) install(account string, expires time.Time) {
	r.Helper()
	claims := fmt.Sprintf(`{"sub":%q,"exp":%d}`, account, expires.Unix())
	token := "x." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	if err := os.WriteFile(r.writer.TokenFile, []byte(token), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *recorded) state(condition kube.TokenCondition) kube.TokenState {
	return kube.TokenState{
		Kind: kube.TokenPerNode, Account: moverAccount, File: "/f", Expires: r.expires, Condition: condition,
		Renewal: r.issued.Add(80 * time.Hour), Warn: r.issued.Add(90 * time.Hour),
	}
}

func (r *recorded) record(s kube.TokenState) {
	r.Helper()
	if err := r.writer.Record(s); err != nil {
		r.Fatal(err)
	}
}

// at returns what another program reads after some hours of the life of the token.
func (r *recorded) at(hours int) *mountstate.Token {
	r.Helper()
	t, err := RecordOf(r.root, "nnf-dm").Read(r.issued.Add(time.Duration(hours) * time.Hour))
	if err != nil {
		r.Fatal(err)
	}
	return t
}

// What a daemon has recorded is correct while it does not run: a renewal that was due is missing, and
// the token expires.
func TestTokenRecord(t *testing.T) {
	r := newRecorded(t)
	if got := r.at(1); got != nil {
		t.Fatalf("without a record: %+v", got)
	}
	const reinstall = "nnf-deploy install --no-programs"
	for _, tt := range []struct {
		state kube.TokenState
		want  map[int]string // condition by hours
		text  string         // part of error and hint at the last hour
	}{
		{r.state(kube.TokenValid), map[int]string{1: mountstate.TokenValid, 89: mountstate.TokenValid, 90: mountstate.TokenFailing}, "has not run since the renewal was due|systemctl enable --now nnf-dm.timer"},
		{r.state(kube.TokenValid), map[int]string{99: mountstate.TokenFailing, 100: mountstate.TokenExpired}, "|" + reinstall},
		{r.state(kube.TokenRetrying), map[int]string{81: mountstate.TokenRetrying, 90: mountstate.TokenFailing}, "no route|do it"},
		{r.state(kube.TokenFailing), map[int]string{91: mountstate.TokenFailing}, "no route|do it"},
		{r.state(kube.TokenExpired), map[int]string{101: mountstate.TokenExpired}, "|do it"},
	} {
		if tt.state.Condition != kube.TokenValid {
			tt.state.Error, tt.state.Hint = "no route", "do it"
		}
		r.record(tt.state)
		latest := 0
		for hours, want := range tt.want {
			latest = max(latest, hours)
			if got := r.at(hours); got == nil || got.Condition != want || (got.Since == nil) != (want == mountstate.TokenValid) || got.Account != moverAccount {
				t.Errorf("%s after %d hours: %+v, want %s", tt.state.Condition, hours, got, want)
			}
		}
		reason, next, _ := strings.Cut(tt.text, "|")
		if got := r.at(latest); got != nil && (!strings.Contains(got.Error, reason) || !strings.Contains(got.Hint, next)) {
			t.Errorf("%s after %d hours: %+v", tt.state.Condition, latest, got)
		}
	}
	r.record(kube.TokenState{Kind: kube.TokenPerNode, Account: moverAccount, Expires: r.expires, Condition: kube.TokenValid, Unsaved: "full"})
	if got := r.at(1); got.Condition != mountstate.TokenUnsaved || got.Error != "full" {
		t.Errorf("%+v", got)
	}
}

// A start of the daemon that changes nothing writes nothing, a condition keeps its start, and only
// the user of the daemon can read the file.
func TestTokenRecordIsStable(t *testing.T) {
	r := newRecorded(t)
	failing := r.state(kube.TokenFailing)
	r.record(failing)
	path := filepath.Join(r.root, "var/lib/nnf-dm", TokenRecordName)
	before, err := os.Stat(path)
	if err != nil || before.Mode() != 0o600 {
		t.Fatalf("%v %v", before, err)
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", dir, err)
	}
	since := r.at(1).Since
	r.writer = RecordOf(r.root, "nnf-dm") // the next start
	r.writer.Node = "c1"
	r.record(failing)
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || !r.at(1).Since.Equal(*since) {
		t.Errorf("%v %v", after, err)
	}
	// Another account: nothing is recorded, and nothing is left.
	r.record(kube.TokenState{Kind: kube.TokenShared, Condition: kube.TokenValid})
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	r.record(kube.TokenState{Kind: kube.TokenShared, Condition: kube.TokenValid})
}

// A token that was installed since makes the record obsolete; the daemon need not have run.
func TestTokenReplaced(t *testing.T) {
	r := newRecorded(t)
	r.record(r.state(kube.TokenExpired))
	for _, tt := range []struct {
		account  string
		expires  time.Time
		obsolete bool
	}{
		{moverAccount, r.expires, false},
		{moverAccount, r.expires.Add(-time.Hour), false}, // the daemon has stored the next one
		{moverAccount, r.expires.Add(time.Hour), true},
		{"system:serviceaccount:nnf-dm-system:nnf-dm-daemon", r.expires.Add(-time.Hour), true},
	} {
		r.install(tt.account, tt.expires)
		if got := r.at(1); (got == nil) != tt.obsolete {
			t.Errorf("%+v: %+v", tt, got)
		}
	}
	if err := os.Remove(r.writer.TokenFile); err != nil {
		t.Fatal(err)
	}
	if r.at(1) == nil {
		t.Error("without a token file")
	}
}

// The user of nnf-dm owns the directory: whatever is there does not block or mislead root.
func TestHostileTokenRecord(t *testing.T) {
	r := newRecorded(t)
	r.record(r.state(kube.TokenValid))
	path := filepath.Join(r.root, "var/lib/nnf-dm", TokenRecordName)
	for name, put := range map[string]func() error{
		"link":      func() error { return os.Symlink("/etc/passwd", path) },
		"pipe":      func() error { return unix.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"empty":     func() error { return os.WriteFile(path, nil, 0o600) },
		"large":     func() error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"newer":     func() error { return os.WriteFile(path, []byte(`{"version":2}`), 0o600) },
		"condition": func() error { return os.WriteFile(path, []byte(`{"version":1,"token":{"condition":"x"}}`), 0o600) },
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if got, err := RecordOf(r.root, "nnf-dm").Read(r.issued); got != nil || err == nil || !strings.Contains(err.Error(), "the state of the token of nnf-dm") {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"token":{"account":"`+moverAccount+`","condition":"failing","hint":"a\u001b[2Jb\n`+strings.Repeat("x", 1000)+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.writer.TokenFile); err != nil {
		t.Fatal(err)
	}
	if got := r.at(1); got == nil || strings.ContainsAny(got.Hint, "\x1b\n") || len(got.Hint) > 2*tokenTextLimit {
		t.Errorf("%+v", got)
	}
}
