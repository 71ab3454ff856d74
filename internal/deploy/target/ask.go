package target

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed" // the script
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

//go:embed scripts/report.sh
var reportText string

var reportScript = remote.Script{Name: "report", Text: bare(prelude + shared + reportText)}

// Maximum sizes in bytes of the output of a reporting command, and of the file that it writes. The
// script sends one byte more.
const (
	maxOutput = 512 << 10
	maxBundle = 8 << 20
)

// Answer is the answer of a command of clientmountd that reports about the node.
type Answer struct {
	Output  []byte
	Code    int    // exit code
	Message string // the first line of standard error

	bundle []byte
	sum    string // SHA-256 of the bundle on the node; "": there is no bundle
}

// Ask runs a command of clientmountd on a node. The arguments must not contain line breaks, and
// must not start or end with a space. An exit code of the command other than that of a usage error
// is not an error of Ask.
func Ask(ctx context.Context, shell remote.Shell, node string, arguments ...string) (*Answer, error) {
	return inquire(ctx, shell, node, "", arguments)
}

// AskBundle is Ask for a command that also writes a support bundle. It returns the bundle after it
// has checked it, and leaves nothing on the node.
func AskBundle(ctx context.Context, shell remote.Shell, node string, arguments ...string) (*Answer, []byte, error) {
	a, err := inquire(ctx, shell, node, "bundle\n", arguments)
	if err != nil {
		return nil, nil, err
	}
	if a.sum == "" {
		problem := "clientmountd has written no bundle"
		if a.Message != "" {
			problem += ": " + a.Message
		}
		return nil, nil, &Problem{Text: problem}
	}
	if err := checkBundle(a.bundle, a.sum); err != nil {
		return nil, nil, &Problem{Text: "its bundle is not valid: " + err.Error()}
	}
	return a, a.bundle, nil
}

func inquire(ctx context.Context, shell remote.Shell, node, first string, arguments []string) (*Answer, error) {
	var request strings.Builder
	request.WriteString(first)
	for _, a := range arguments {
		fmt.Fprintf(&request, "argument %s\n", a)
	}
	request.WriteString("end\n")
	var out bytes.Buffer
	err := shell.Run(ctx, node, reportScript, strings.NewReader(request.String()), &bounded{&out, 2*maxOutput + 3*maxBundle/2})
	silent := out.Len() == 0
	answer, perr := parseAnswer(&out)
	if e := (*remote.Error)(nil); errors.As(err, &e) && (e.Kind != remote.Failed || silent) {
		return nil, err
	}
	return answer, perr
}

func parseAnswer(in io.Reader) (*Answer, error) {
	a, damaged := &Answer{Code: -1}, false
	err := parseLines(in, func(f []string) {
		if len(f) != 2 {
			return
		}
		data, err := base64.StdEncoding.DecodeString(f[1])
		damaged = damaged || err != nil
		switch f[0] {
		case "output":
			a.Output = data
		case "messages":
			messages, code, _ := cutLast(string(data))
			a.Message, _, _ = strings.Cut(strings.TrimSpace(messages), "\n")
			a.Code, err = strconv.Atoi(code)
			damaged = damaged || err != nil
		case "bundle":
			a.bundle = append(a.bundle, data...)
		case "sum":
			a.sum = string(data)
		}
	})
	const usage = 2
	switch {
	case err != nil:
		return nil, err
	case damaged, a.Code < 0:
		return nil, &Problem{Text: "cannot parse its answer"}
	case len(a.Output) > maxOutput:
		return nil, &Problem{Text: fmt.Sprintf("the output of clientmountd has more than %d KiB", maxOutput>>10)}
	case len(a.bundle) > maxBundle:
		return nil, &Problem{Text: fmt.Sprintf("its bundle has more than %d MiB", maxBundle>>20), Hint: "run clientmountd doctor --bundle on the node"}
	case a.Code == usage:
		return nil, &Problem{Text: "this version of clientmountd does not have the command", Hint: "update it with nnf-deploy install"}
	case a.Code == 124, a.Code == 128+9: // of timeout(1), the second if it had to kill the command
		return nil, &Problem{Text: "clientmountd did not finish within its time limit"}
	}
	return a, nil
}

// Bounds of the contents of a bundle. clientmountd writes less.
const (
	bundleFiles = 1000
	bundleBytes = 64 << 20
)

// checkBundle checks that a bundle arrived complete, and that it is an archive that can be unpacked
// safely, whatever the node has sent: it has regular files of a bounded size in one directory.
func checkBundle(data []byte, want string) error {
	if want != sum(data) {
		return errors.New("it arrived damaged")
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	limited := &io.LimitedReader{R: z, N: bundleBytes}
	t := tar.NewReader(limited)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, t)
		}
		switch {
		case limited.N <= 0 || n > bundleFiles:
			return fmt.Errorf("it has more than %d files or %d MiB", bundleFiles, bundleBytes>>20)
		case errors.Is(err, io.EOF) && n > 0:
			// The rest, up to the checksum at the end.
			_, err = io.Copy(io.Discard, limited)
			return err
		case errors.Is(err, io.EOF):
			return errors.New("it is empty")
		case err != nil:
			return err
		case h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) || !strings.HasPrefix(h.Name, "clientmountd-doctor/") || strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r > '~' }):
			return fmt.Errorf("it has the entry %.80q", h.Name)
		}
	}
}

// cutLast cuts a text before its last line.
func cutLast(text string) (before, last string, found bool) {
	i := strings.LastIndexByte(text, '\n')
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}
