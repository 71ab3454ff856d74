package dmctl

import (
	"bufio"
	"io"
	"os"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// pairs is what to copy, from the command line or --batch.
func (v *call) pairs() ([]client.Pair, error) {
	if v.copy.batch != "" {
		if len(v.Args) > 0 {
			return nil, usage.Errorf("unexpected argument %.80q: with --batch the pairs come from the file", v.Args[0])
		}
		return v.readPairs()
	}
	if len(v.Args) < 2 {
		return nil, usage.Errorf("copy needs SRC... DST")
	}
	last := len(v.Args) - 1
	sources, destination := v.Args[:last], v.Args[last]
	if len(sources) > 1 && !strings.HasSuffix(destination, "/") {
		return nil, usage.Errorf("several sources need a destination that ends in /, not %.80q", destination)
	}
	var out []client.Pair
	for _, s := range sources {
		out = append(out, client.Pair{Source: s, Destination: destination})
	}
	return out, nil
}

func (v *call) readPairs() ([]client.Pair, error) {
	var from io.Reader = v.Stdin
	name := "standard input"
	if v.copy.batch != "-" {
		f, err := os.Open(v.copy.batch)
		if err != nil {
			return nil, usage.Errorf("--batch: %v", err)
		}
		defer f.Close()
		from, name = f, v.copy.batch
	}
	var out []client.Pair
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
		case len(words) == 2: // no path that a rabbit accepts has blanks
			out = append(out, client.Pair{Source: words[0], Destination: words[1]})
		default:
			return nil, usage.Errorf("%s, line %d: expected SRC DST, found %d words", name, n, len(words))
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return nil, usage.Errorf("%s: %v", name, err)
	case len(out) == 0:
		return nil, usage.Errorf("%s contains no pairs", name)
	}
	return out, nil
}
