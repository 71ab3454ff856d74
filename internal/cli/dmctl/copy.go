package dmctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type copySettings struct {
	profile, dcp, mpirun, key, batch string
	dryrun, log, store               bool
	slots, maxSlots                  int32
}

var copyCommand = &command{
	Name: "copy", Args: "SRC... DST", Short: "copy SRC in the job's storage to DST in a global file system",
	Long: `The rabbit copies the data. SRC is a file or directory as this node sees it:
"/mnt/dir" is the directory itself, "/mnt/dir/" its contents. With several SRC, DST
must end in "/". With --batch, the command reads the pairs from a file that has one
"SRC DST" per line; "-" is standard input.

The command prints the id of the copy and returns; the rabbit continues. With
--wait, it shows the progress and returns when the copy has ended. Ctrl-C then
detaches, and Ctrl-C twice cancels the copy.`,
	Most: -1, Complete: cli.Files, Flags: copyFlags, Run: withDaemon(runCopy),
}

func copyFlags(f *pflag.FlagSet, v *call) {
	c := &v.copy
	f.BoolVar(&v.wait, "wait", false, "wait until the copy has ended, and show its progress")
	waitFlags(f, v)
	f.StringVar(&c.profile, "profile", "", "use the profile `NAME` instead of the default profile of the site")
	f.StringVar(&c.dcp, "dcp-options", "", "pass `OPTIONS` to dcp; the site decides which are allowed")
	f.StringVar(&c.mpirun, "mpirun-options", "", "pass `OPTIONS` to mpirun; the site decides which are allowed")
	f.BoolVar(&c.dryrun, "dry-run", false, "do everything except copy data")
	f.Int32Var(&c.slots, "slots", -1, "let mpirun use `N` slots per host; 0: no slots in the hostfile; -1: as in the profile")
	f.Int32Var(&c.maxSlots, "max-slots", -1, "let mpirun use at most `N` slots per host; 0 and -1 as for --slots")
	f.BoolVar(&c.log, "log-stdout", false, "write the output of the copying command to the log of the rabbit")
	f.BoolVar(&c.store, "store-stdout", false, "store the output of the copying command in the status message")
	f.StringVar(&c.key, "key", "", "identify the copy by a `KEY` of your choice: a repeated command with the same key starts no second copy")
	f.StringVar(&c.batch, "batch", "", "read the pairs from `FILE`")
}

func runCopy(ctx context.Context, v *call) error {
	if v.workflow == "" {
		return noWorkflow
	}
	pairs, err := v.pairs()
	if err != nil {
		return err
	}
	made, err := v.ask(ctx, pairs)
	if err != nil {
		return err
	}
	var ids []string
	var first error
	for _, p := range made.Pairs {
		if p.Err == nil {
			ids = append(ids, p.ID)
			continue
		}
		if first == nil {
			first = p.Err
		}
		if len(made.Pairs) > 1 {
			v.Explain(fmt.Errorf("%s: %w", p.Source, p.Err))
		}
	}
	if len(made.Pairs) == 1 && first != nil {
		return first
	}
	v.Code = exitOf(first)
	// An empty list of ids would mean all copies of the workflow.
	if !v.wait || len(ids) == 0 {
		return v.showMade(made, ids)
	}
	handles := ids
	if made.Batch != "" && len(ids) > 1 {
		handles = []string{made.Batch}
	}
	all, err := v.follow(ctx, handles)
	if err != nil {
		return err
	}
	return v.showAll(all)
}

// ask sends the request. After an interruption it is unknown whether a copy was started.
func (v *call) ask(ctx context.Context, pairs []client.Pair) (client.Made, error) {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	c := &v.copy
	made, err := v.client.Copy(ctx, client.Request{
		Pairs: pairs, Profile: c.profile, DCPOptions: c.dcp, MPIRunOptions: c.mpirun, Dryrun: c.dryrun,
		LogStdout: c.log, StoreStdout: c.store, Slots: c.slots, MaxSlots: c.maxSlots, Key: c.key,
	})
	if d := (*cli.Stopped)(nil); err != nil && errors.As(context.Cause(ctx), &d) {
		return made, hint.Add(d, "run %s list to see whether the copy was started", Name)
	}
	if err == nil && c.key != "" && v.client.Old() {
		v.Say("warning: this daemon may ignore --key: run %s list before you repeat the command", Name)
	}
	return made, err
}

// showMade prints the ids, for calls without --wait.
func (v *call) showMade(made client.Made, ids []string) error {
	if v.output == formatJSON {
		return text.JSON(v.Stdout, madeJSON(made))
	}
	for _, id := range ids {
		if _, err := fmt.Fprintln(v.Stdout, text.Line(id)); err != nil {
			return err
		}
	}
	return nil
}

type madeDocument struct {
	Batch  string         `json:"batch,omitempty"`
	Copies []madeCopyJSON `json:"copies"`
}

type madeCopyJSON struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	ID          string `json:"id,omitempty"`
	Error       string `json:"error,omitempty"`
	Hint        string `json:"hint,omitempty"`
}

func madeJSON(made client.Made) madeDocument {
	out := madeDocument{Batch: made.Batch}
	for _, p := range made.Pairs {
		c := madeCopyJSON{Source: p.Source, Destination: p.Destination, ID: p.ID}
		if p.Err != nil {
			c.Error, c.Hint = p.Err.Error(), hint.Of(p.Err)
		}
		out.Copies = append(out.Copies, c)
	}
	return out
}

var noWorkflow = hint.Add(usage.Errorf("no workflow: neither --workflow nor DW_WORKFLOW_NAME is set"), "run the command in a job, or use --workflow")

// pairs returns the sources and destinations from the command line or from --batch.
func (v *call) pairs() ([]client.Pair, error) {
	if v.copy.batch != "" {
		if len(v.Args) > 0 {
			return nil, usage.Errorf("unexpected argument %.80q: --batch reads the pairs from a file", v.Args[0])
		}
		return v.readPairs()
	}
	if len(v.Args) < 2 {
		return nil, usage.Errorf("copy needs SRC... DST")
	}
	last := len(v.Args) - 1
	sources, destination := v.Args[:last], v.Args[last]
	if len(sources) > 1 && !strings.HasSuffix(destination, "/") {
		return nil, usage.Errorf("with several sources, DST must end with /: %.80q", destination)
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
		case len(words) == 2: // the daemon refuses paths with spaces
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
