// Package offload is the conformance suite of nnf-dm: every row of its contract
// is tested with the real daemon, its real account and its rights, a
// real API server, and callers whom the kernel knows by other identities. What
// holds for one type of file system holds for gfs2 and Lustre, so tests run for
// both; what both versions of the protocol answer is asked of both.
//
// Most tests write the statuses that a rabbit would write, so that its rarest states
// are as easy to reach as its usual ones. The last group has a stand-in for the
// rabbit that really copies.
//
// It must not know how the daemon does its work: it sees the socket, the API
// server and what passes between them, and the process's end.
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
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) {
	// Tests wait for others most of the time, so more of them than there are
	// processors may run at once.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(world.Main(m))
}

// A kind is a type of file system from which a rabbit can copy.
type kind struct {
	name    string // spec.mounts[].type
	device  string // spec.mounts[].device.type
	storage string // kind of the storage reference
	prefix  string // of the movements' names
	step    string // what Create is at when it makes the object, as its messages say
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

// A promise is one behaviour, and the rows of the contract that it shows.
type promise struct {
	name  string
	rows  string // by their numbers in the list of rows
	kinds []*kind
	test  func(*env)
}

// Whose file system a test is about.
var (
	both  = []*kind{gfs2, lustre}
	one   = []*kind{gfs2} // the type does not matter
	alone = []*kind{lustre}
)

// A group is a number of tests on one state of the cluster.
type group struct {
	name     string
	promises []promise
	serial   bool // its tests change what all tests share
	prepare  func(*testing.T, *world.World)
}

var groups = []group{
	{"bare", barePromises, true, nil},
	{"furnished", slices.Concat(createPromises, mountPromises, objectPromises, destinationPromises, invalidPromises,
		accessPromises, statusPromises, waitPromises, cancelPromises, deletePromises, listPromises, keyPromises,
		lookupPromises, costPromises, errorPromises, socketPromises, processPromises, simulatedPromises, batchPromises, emptyPromises), false, furnish},
	{"copying", append(copyPromises, clientPromises...), false, startRabbit},
	{"newer", newerPromises, true, loosen},
}

// TestOffload runs everything.
func TestOffload(t *testing.T) {
	var run atomic.Int64
	promises := 0
	for _, a := range groups {
		t.Run(a.name, func(t *testing.T) {
			set := world.New(t)
			if a.prepare != nil {
				a.prepare(t, set)
			}
			promises += len(a.promises)
			t.Run("tests", func(t *testing.T) { // returns when its parallel tests have
				for _, p := range a.promises {
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
	fmt.Printf("offload: %d promises, %d rows of the contract, %d tests kept\n", promises, len(rows), run.Load())
}

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 60 * time.Second

// env is one workflow of alice on one compute of one rabbit, all of its own.
type env struct {
	*world.World
	t        *testing.T
	k        *kind
	job      string // name of the workflow, in namespace default
	uid      string // its metadata.uid
	path     string // where its storage is mounted on the compute
	onRabbit string // and on the rabbit
	config   string // the daemon's configuration file has this

	d   *lab.Process
	me  pb.DataMoverClient // alice
	me2 pb2.DataMoverClient
}

func newEnv(t *testing.T, k *kind) *env {
	t.Helper()
	s := &env{World: world.New(t), t: t, k: k}
	s.job = "job-" + strings.TrimPrefix(s.Node, "compute-")
	s.UseProxy()
	s.Namespace(s.Rabbit)
	return s
}

// usual sets up what a job finds, and starts the daemon.
func (s *env) usual() {
	s.t.Helper()
	s.system()
	s.workflow(nil)
	s.mounts()
	s.start()
}

func (s *env) ctx() context.Context { return s.Context(patience) }

// start runs the released daemon; a later flag wins.
func (s *env) start(flags ...string) {
	s.t.Helper()
	s.startWith(s.spec(flags...))
}

// spec is that of the daemon with the configuration of this test.
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

// same compares texts and says what they are about.
func (s *env) same(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// records counts the audit records of refusals that have all the texts.
func (s *env) records(texts ...string) (n int) {
	for _, line := range s.d.Log() {
		if line.Fields["msg"] == "refused" && line.Has(texts...) {
			n++
		}
	}
	return n
}
