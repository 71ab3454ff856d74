package offload

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) {
	// Scenes wait for others most of the time, so more of them than there are
	// processors may be played at once.
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
	play  func(*env)
}

// Whose file system a scene is about.
var (
	both  = []*kind{gfs2, lustre}
	one   = []*kind{gfs2} // the type does not matter
	alone = []*kind{lustre}
)

// An act is a group of scenes on one state of the cluster.
type act struct {
	name     string
	promises []promise
	serial   bool // its scenes change what all scenes share
	prepare  func(*testing.T, *world.World)
}

var acts = []act{
	{"bare", barePromises, true, nil},
	{"furnished", slices.Concat(createPromises, mountPromises, objectPromises, destinationPromises, invalidPromises,
		accessPromises, statusPromises, waitPromises, cancelPromises, deletePromises, listPromises, keyPromises,
		lookupPromises, costPromises, errorPromises, socketPromises, processPromises, simulatedPromises, batchPromises, emptyPromises), false, furnish},
	{"copying", append(copyPromises, clientPromises...), false, startRabbit},
	{"newer", newerPromises, true, loosen},
}

// TestOffload plays everything.
func TestOffload(t *testing.T) {
	var scenes atomic.Int64
	promises := 0
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			set := world.New(t)
			if a.prepare != nil {
				a.prepare(t, set)
			}
			promises += len(a.promises)
			t.Run("scenes", func(t *testing.T) { // returns when its parallel scenes have
				for _, p := range a.promises {
					for _, k := range p.kinds {
						t.Run(p.name+"/"+k.name, func(t *testing.T) {
							if !a.serial {
								t.Parallel()
							}
							p.play(newEnv(t, k))
							scenes.Add(1)
						})
					}
				}
			})
		})
	}
	fmt.Printf("offload: %d promises, %d rows of the contract, %d scenes kept\n", promises, len(rows), scenes.Load())
}
