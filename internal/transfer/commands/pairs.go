package commands

import (
	"bufio"
	"io"
	"os"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

// pairs is what to copy, from the command line or --batch.
func (v *call) pairs() ([]transfer.Pair, error) {
	if v.copy.batch != "" {
		if len(v.args) > 0 {
			return nil, usagef("with --batch the pairs come from the file: unexpected argument %.80q", v.args[0])
		}
		return v.readPairs()
	}
	if len(v.args) < 2 {
		return nil, usagef("copy needs SRC... DST")
	}
	last := len(v.args) - 1
	sources, destination := v.args[:last], v.args[last]
	if len(sources) > 1 && !strings.HasSuffix(destination, "/") {
		return nil, usagef("several sources need a destination that ends in /, not %.80q", destination)
	}
	var out []transfer.Pair
	for _, s := range sources {
		out = append(out, transfer.Pair{Source: s, Destination: destination})
	}
	return out, nil
}

func (v *call) readPairs() ([]transfer.Pair, error) {
	var from io.Reader = v.Stdin
	name := "standard input"
	if v.copy.batch != "-" {
		f, err := os.Open(v.copy.batch)
		if err != nil {
			return nil, usagef("--batch: %v", err)
		}
		defer f.Close()
		from, name = f, v.copy.batch
	}
	var out []transfer.Pair
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
		case len(words) == 2: // no path that a rabbit accepts has blanks
			out = append(out, transfer.Pair{Source: words[0], Destination: words[1]})
		default:
			return nil, usagef("%s, line %d: want SRC DST, got %d words", name, n, len(words))
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return nil, usagef("%s: %v", name, err)
	case len(out) == 0:
		return nil, usagef("%s has no pairs", name)
	}
	return out, nil
}
