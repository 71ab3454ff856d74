package dmctl

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client/fakedaemon"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

func newDoctor(environ ...string) *doctor {
	return &doctor{call: newCall(&cli.Call{Process: cli.Process{Environ: environ}, Program: Name})}
}

// only returns the only result.
func (d *doctor) only(t *testing.T) checklist.Check {
	t.Helper()
	if len(d.list) != 1 {
		t.Fatalf("%+v", d.list)
	}
	return d.list[0]
}

func TestDoctorLimits(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		used, bytes *int64
		want        checklist.State
		text        string
	}{
		{number(0), number(0), checklist.OK, "0 of 1000 copies on this node, 0 B of 1 MiB;"},
		{number(899), number(1536), checklist.OK, "899 of 1000 copies on this node, 1.5 KiB of 1 MiB;"},
		{number(900), number(1), checklist.Warn, "900 of 1000"},
		{number(1), number(1 << 20), checklist.Fail, "1 MiB of 1 MiB"},
		{number(1000), number(1), checklist.Fail, "1000 of 1000"},
		{nil, nil, checklist.OK, "at most 1000 copies on this node, with 1 MiB;"},
	} {
		d := newDoctor()
		d.limits(client.Limits{Movements: 1000, MovementBytes: 1 << 20, MovementsUsed: tt.used, MovementBytesUsed: tt.bytes, MaxWait: 90 * time.Minute, Memory: 1 << 30})
		c := d.only(t)
		if c.State != tt.want || !strings.Contains(c.Text, tt.text) || !strings.Contains(c.Text, "at most 1h30m;") || !strings.Contains(c.Text, "1 GiB of memory") || (c.Hint == "") != (tt.want == checklist.OK) {
			t.Errorf("%+v", c)
		}
	}
}

func TestDoctorDestinations(t *testing.T) {
	d := newDoctor()
	d.destinations(client.Description{Destinations: []string{"/lus/a", "/lus/b"}, DestinationsOmitted: 7})
	if c := d.only(t); c.State != checklist.OK || c.Text != "copies can go to /lus/a, /lus/b and 7 more" {
		t.Errorf("%+v", c)
	}
}

// Variables of the job that have no path are ignored; of a repeated one, the last applies.
func TestDoctorStorage(t *testing.T) {
	d := newDoctor("DW_JOB_b=/mnt/x", "DW_JOB_a=/mnt/0", "DW_JOB_a=/mnt/1", "DW_JOB_STRIPES=4", "DW_PERSISTENT_c=/mnt/2/dir", "DW_WORKFLOW_NAME=job", "DW_JOB_e=")
	got := d.storage()
	want := []storagePath{{"DW_JOB_a", "/mnt/1"}, {"DW_JOB_b", "/mnt/x"}, {"DW_PERSISTENT_c", "/mnt/2/dir"}}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	// If some mounts are omitted, a variable may be on one of them.
	d.mounts(client.Description{Storage: []client.Storage{{Path: "/mnt/2", Type: "lustre", Ready: true}}, StorageOmitted: 1})
	if len(d.list) != 2 || d.list[0].Text != "/mnt/2 (DW_PERSISTENT_c): lustre, ready, can be copied" || d.list[1].State != checklist.Skip {
		t.Errorf("%+v", d.list)
	}
}

// A daemon that accepts connections and does not answer, and one whose API server does not.
func TestDoctorTimeLimit(t *testing.T) {
	dir, err := os.MkdirTemp("", "dm") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	silent, err := net.Listen("unix", filepath.Join(dir, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	slow, err := fakedaemon.Start(filepath.Join(dir, "slow"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Stop()
	for socket, want := range map[string][]checklist.Check{
		silent.Addr().String(): {{Name: checkSocket, State: checklist.OK}, {Name: checkVersion, State: checklist.Fail, Text: "no answer within"}},
		slow.Socket: {
			{Name: checkSocket, State: checklist.OK}, {Name: checkVersion, State: checklist.Warn}, {Name: checkWorkflow, State: checklist.Fail, Text: "no answer within"},
			{Name: checkMount, State: checklist.Skip}, {Name: checkDestinations, State: checklist.Skip}, {Name: checkLimits, State: checklist.Skip},
		},
	} {
		d := newDoctor()
		d.settings.socket, d.workflow = socket, "hang"
		if d.client, err = client.Open(client.Options{Socket: socket, Workflow: "hang", Namespace: "default"}); err != nil {
			t.Fatal(err)
		}
		d.limit = time.Minute
		if socket != slow.Socket {
			d.limit = 100 * time.Millisecond
		}
		if d.daemon(t.Context()) {
			d.limit = 100 * time.Millisecond
			d.job(t.Context())
		}
		d.client.Close()
		if len(d.list) != len(want) {
			t.Errorf("%+v", d.list)
			continue
		}
		for i, w := range want {
			if c := d.list[i]; c.Name != w.Name || c.State != w.State || !strings.Contains(c.Text, w.Text) || c.Hint == "" && c.State == checklist.Fail {
				t.Errorf("%+v, want %+v", c, w)
			}
		}
	}
}

// The daemon has the same time limit, and its answer can arrive before that of this process expires.
func TestLate(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	soon, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
	defer cancel()
	cancelled := &client.Error{Kind: client.Interrupted, Text: "stream terminated by RST_STREAM with error code: CANCEL"}
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{
		{t.Context(), nil, false}, {done, nil, false}, {soon, nil, false}, {done, errors.New("x"), true}, {soon, errors.New("x"), false},
		{soon, cancelled, true}, {soon, &client.Error{Kind: client.TimedOut}, true}, {soon, &client.Error{Kind: client.Unreachable}, false},
		{t.Context(), cancelled, false},
	} {
		if late(tt.ctx, tt.err) != tt.want {
			t.Errorf("%v: %v", tt.err, !tt.want)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/mnt/a", "/mnt/a", true}, {"/mnt/a/b", "/mnt/a", true}, {"/mnt/a/", "/mnt/a/", true}, {"/mnt/ab", "/mnt/a", false}, {"/mnt", "/mnt/a", false},
	} {
		if below(tt.path, tt.dir) != tt.want {
			t.Errorf("%+v", tt)
		}
	}
}
