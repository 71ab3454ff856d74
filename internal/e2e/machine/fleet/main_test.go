package fleet

import (
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, Tools...)) }

func contains(text, part string) bool { return strings.Contains(text, part) }
