// Package offload is the conformance suite of nnf-dm: it tests every row of the contract with
// the real daemon, its real account and permissions, a real API server, and callers with
// different user IDs. Most tests run for gfs2 and Lustre, and for both versions of the
// protocol.
//
// Most tests write the statuses that a rabbit would write, so that rare states are as easy to
// reach as usual ones. The last group uses a fake rabbit that really copies.
//
// It must not depend on the implementation of the daemon: it checks the socket, the API server,
// the requests between them, and the exit of the process.
package offload

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) {
	// The tests mostly wait, so more of them than there are processors can run concurrently.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(fixture.Main(m))
}

// A kind is a type of file system from which a rabbit can copy.
type kind struct {
	name    string // spec.mounts[].type
	device  string // spec.mounts[].device.type
	storage string // kind of the storage reference
	prefix  string // of the movements' names
	step    string // name of the step in the messages of Create
	system  bool   // the movements are in the namespace that all rabbits share
}

var (
	gfs2 = &kind{
		name: "gfs2", device: "reference", storage: "NnfNodeStorage", prefix: "nnf-dm-node-",
		step: "Error during createNnfNodeDataMovement(): ",
	}
	lustre = &kind{
		name: "lustre", device: "lustre", storage: "NnfStorage", prefix: "nnf-dm-", system: true,
		step: "Error during createNnfDataMovement(): ",
	}
)

// A behaviour is one test, with the rows of the contract that it covers.
type behaviour struct {
	name  string
	rows  string // ids of rows
	kinds []*kind
	test  func(*env)
}

// The kinds of file system for a test.
var (
	both  = []*kind{gfs2, lustre}
	one   = []*kind{gfs2} // independent of the type
	alone = []*kind{lustre}
)

// A group has the tests for one state of the cluster.
type group struct {
	name       string
	behaviours []behaviour
	serial     bool // its tests change shared objects
	prepare    func(*testing.T, *fixture.Fixture)
}

var groups = []group{
	{"bare", bareBehaviours, true, nil},
	{"configured", slices.Concat(createBehaviours, mountBehaviours, objectBehaviours, destinationBehaviours, invalidBehaviours,
		accessBehaviours, statusBehaviours, waitBehaviours, cancelBehaviours, deleteBehaviours, listBehaviours, keyBehaviours,
		lookupBehaviours, costBehaviours, errorBehaviours, socketBehaviours, processBehaviours, simulatedBehaviours, batchBehaviours, emptyBehaviours, doctorBehaviours), false, createShared},
	{"copying", append(copyBehaviours, clientBehaviours...), false, startRabbit},
	{"newer", newerBehaviours, true, loosen},
}

// TestOffload runs all groups.
func TestOffload(t *testing.T) {
	var run atomic.Int64
	behaviours := 0
	for _, a := range groups {
		t.Run(a.name, func(t *testing.T) {
			set := fixture.New(t)
			if a.prepare != nil {
				a.prepare(t, set)
			}
			behaviours += len(a.behaviours)
			t.Run("tests", func(t *testing.T) { // returns when its parallel tests have returned
				for _, p := range a.behaviours {
					for _, k := range p.kinds {
						t.Run(p.name+"/"+k.name, func(t *testing.T) {
							if !a.serial {
								t.Parallel()
							}
							p.test(newEnv(t, k))
							run.Add(1)
						})
					}
				}
			})
		})
	}
	fmt.Printf("offload: %d behaviours, %d rows of the contract, %d tests kept\n", behaviours, len(rows), run.Load())
}

// patience is the time limit for steps that usually take milliseconds, on a busy machine.
const patience = 60 * time.Second

// env is one workflow of alice on a separate compute of a separate rabbit.
type env struct {
	*fixture.Fixture
	t        *testing.T
	k        *kind
	job      string // name of the workflow, in namespace default
	uid      string // its metadata.uid
	path     string // mount point of its storage on the compute
	onRabbit string // mount point on the rabbit
	config   string // content of the daemon's configuration file

	d   *lab.Process
	me  pb.DataMoverClient // alice
	me2 pb2.DataMoverClient
}

func newEnv(t *testing.T, k *kind) *env {
	t.Helper()
	s := &env{Fixture: fixture.New(t), t: t, k: k}
	s.job = "job-" + strings.TrimPrefix(s.Node, "compute-")
	s.UseProxy()
	s.Namespace(s.Rabbit)
	return s
}

// usual creates the usual objects of a job, and starts the daemon.
func (s *env) usual() {
	s.t.Helper()
	s.system()
	s.workflow(nil)
	s.mounts()
	s.start()
}

func (s *env) ctx() context.Context { return s.Context(patience) }

// start starts the built daemon; later flags take precedence.
func (s *env) start(flags ...string) {
	s.t.Helper()
	s.startWith(s.spec(flags...))
}

// spec returns the spec of the daemon with the configuration of this test.
func (s *env) spec(flags ...string) lab.Spec {
	config := s.Write("config.toml", []byte(s.config))
	return s.Spec(lab.Spec{Program: "nnf-dm", Args: append([]string{"--config=" + config}, flags...)})
}

// startWith starts the daemon and waits until it is ready.
func (s *env) startWith(spec lab.Spec) {
	s.t.Helper()
	s.launch(spec)
	s.Ready(s.d)
	s.me, s.me2 = s.as(alice), s.as2(alice)
}

func (s *env) launch(spec lab.Spec) {
	s.t.Helper()
	s.d = lab.Start(s.t, s.Lab, spec)
}

// same compares two texts; what is for the message.
func (s *env) same(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// records counts the audit records that contain all the texts.
func (s *env) records(texts ...string) (n int) {
	for _, line := range s.d.Log() {
		if line.Fields["msg"] == "refused" && line.Has(texts...) {
			n++
		}
	}
	return n
}
