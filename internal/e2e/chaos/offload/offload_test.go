// Package offload is the world of nnf-dm for package chaos: the real daemon, an API server behind a
// proxy that can break connections, a stand-in for the rabbit, and several users, one of them hostile.
//
// The checks use the objects at the API server and the recorded calls. It must not know how the daemon
// works.
package offload

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVariable); socket != "" {
		os.Exit(beHostile(socket, os.Stdin, os.Stdout))
	}
	os.Exit(fixture.Main(m))
}

func TestSeeds(t *testing.T) {
	offload().Seeds(t)
	slices.Sort(latencies)
	if n := len(latencies); n > 0 {
		fmt.Printf("chaos: offload: %d calls that only a hostile user disturbs: p50 %v, p99 %v, longest %v\n", n, latencies[n/2], latencies[n*99/100], latencies[n-1])
	}
}

func TestScripts(t *testing.T) { offload().Scripts(t) }
func TestTexts(t *testing.T)   { offload().Texts(t) }
