package upgrade

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// tokenLife is the life of the tokens of nnf-dm. A proxy adds most of it to the date of responses, so
// that the daemon renews its token immediately.
const tokenLife = time.Hour

// mover is a node whose nnf-dm has an account of its own. All that nnf-dm keeps are data movements at
// the API server, and in its state directory a renewed token and its state.
type mover struct {
	*fixture.Fixture
	t   *testing.T
	job *fixture.Job
	c   pb.DataMoverClient
}

func newMover(t *testing.T) *mover {
	f := fixture.New(t)
	f.Site()
	for _, o := range f.NodeObjects(fixture.SystemConfiguration(f.System, []any{fixture.StorageNode(f.Rabbit, f.Node)})) {
		if !strings.HasPrefix(o.String("kind"), "ValidatingAdmissionPolicy") {
			f.ApplyStrict(o)
		}
	}
	f.UseProxy()
	m := &mover{Fixture: f, t: t, job: f.Job("job-"+f.Node, 1001, 0)}
	token := []byte(f.NodeToken("nnf-dm", f.Node, tokenLife))
	m.Token = f.Write("token", token)
	client := f.Client(token)
	wait.Until(t, "the role of the account", func() bool {
		_, err := client.Do(t.Context(), http.MethodGet, lab.Path("NnfDataMovement", f.Rabbit, ""), "", nil)
		return err == nil
	})
	m.c = pb.NewDataMoverClient(f.Dial())
	return m
}

func (m *mover) start(program string) *lab.Process {
	return m.StartDaemon(lab.Spec{Program: program})
}

// status returns the status of a data movement.
func (m *mover) status(uid string) *pb.DataMovementStatusResponse {
	m.t.Helper()
	r, err := m.c.Status(m.t.Context(), &pb.DataMovementStatusRequest{Workflow: m.job.Ref(), Uid: uid, MaxWaitTime: 0})
	m.Must(err)
	return r
}

// continues lets one build of nnf-dm renew its token and create data movements, and another one
// continue with both.
func (m *mover) continues(writer, reader string) {
	started := time.Now()
	wait.Until(m.t, "the next second, because the times in tokens are whole seconds", func() bool { return time.Since(started) > time.Second })
	m.Proxy.Skew(tokenLife * 90 / 100)
	d := m.start(writer)
	var uids []string
	for range 4 {
		r, err := m.c.Create(m.t.Context(), m.job.Request("/out/", "/alice/"))
		m.Must(err)
		if r.Status != pb.DataMovementCreateResponse_SUCCESS {
			m.t.Fatal(r)
		}
		uids = append(uids, r.Uid)
	}
	waits, runs, ended, cancelled := uids[0], uids[1], uids[2], uids[3]
	m.Runs(runs)
	m.Runs(cancelled)
	m.Ends(ended, "Success")
	wait.Until(m.t, "the end of a movement", func() bool { return m.status(ended).State == pb.DataMovementStatusResponse_COMPLETED })
	wait.Until(m.t, "the start of a movement", func() bool { return m.status(cancelled).State == pb.DataMovementStatusResponse_RUNNING })
	_, err := m.c.Cancel(m.t.Context(), &pb.DataMovementCancelRequest{Workflow: m.job.Ref(), Uid: cancelled})
	m.Must(err)
	stored := filepath.Join(m.State("nnf-dm"), "service.token")
	wait.Until(m.t, "the renewed token", func() bool { _, err := os.Stat(stored); return err == nil })
	m.Stop(d)
	token, err := os.ReadFile(stored)
	m.Must(err)
	m.Proxy.Skew(0)

	m.Proxy.ClearRequests()
	d = m.start(reader)
	for uid, want := range map[string]pb.DataMovementStatusResponse_State{
		waits: pb.DataMovementStatusResponse_PENDING, runs: pb.DataMovementStatusResponse_RUNNING,
		ended: pb.DataMovementStatusResponse_COMPLETED, cancelled: pb.DataMovementStatusResponse_CANCELLING,
	} {
		if s := m.status(uid); s.State != want {
			m.t.Errorf("%s is %v, want %v", uid, s, want)
		}
	}
	list, err := m.c.List(m.t.Context(), &pb.DataMovementListRequest{Workflow: m.job.Ref()})
	slices.Sort(uids)
	if m.Must(err); !slices.Equal(list.Uids, uids) {
		m.t.Errorf("the list has %v, want %v", list.Uids, uids)
	}
	for _, uid := range []string{runs, cancelled} {
		m.Ends(uid, "Success")
		wait.Until(m.t, "the end of a movement", func() bool { return m.status(uid).State == pb.DataMovementStatusResponse_COMPLETED })
	}
	for _, uid := range []string{ended, runs, cancelled} {
		r, err := m.c.Delete(m.t.Context(), &pb.DataMovementDeleteRequest{Workflow: m.job.Ref(), Uid: uid})
		if m.Must(err); r.Status != pb.DataMovementDeleteResponse_SUCCESS {
			m.t.Errorf("delete %s: %v", uid, r)
		}
	}
	if now, err := os.ReadFile(stored); err != nil || string(now) != string(token) {
		m.t.Errorf("the stored token has changed: %v", err)
	}
	for _, r := range m.Proxy.Requests() {
		if r.Token != strings.TrimSpace(string(token)) {
			m.t.Errorf("%s was requested without the stored token", r.Path)
		}
	}
	for _, line := range d.Log() {
		if level := line.Fields["level"]; level == "WARN" || level == "ERROR" {
			m.t.Logf("%s", line.Text)
		}
		if line.Has("token.json") {
			m.t.Errorf("not understood: %s", line.Text)
		}
	}
	m.Stop(d)
}

// nnf-dm continues with the data movements and the token of the previous release, and the previous
// release with those of this build.
func TestMovements(t *testing.T) {
	old, missing := build(t, previous, "nnf-dm")
	if missing != "" {
		t.Skip(missing)
	}
	now, err := lab.Binary("nnf-dm")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("upgrade", func(t *testing.T) { newMover(t).continues(old, now) })
	t.Run("downgrade", func(t *testing.T) { newMover(t).continues(now, old) })
}
