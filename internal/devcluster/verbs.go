package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/apiclient"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/lifeline"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/manifests"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/provision"
)

// maxInput limits the input of apply, in bytes.
const maxInput = 16 << 20

// cluster is the cluster of --dir.
type cluster struct{ dir string }

func addDir(flags *pflag.FlagSet) *cluster {
	c := &cluster{}
	flags.StringVar(&c.dir, "dir", "", "directory of the cluster")
	return c
}

// lifetime determines when a server ends, besides SIGINT and SIGTERM.
type lifetime struct{ stdin bool }

func addLifetime(flags *pflag.FlagSet) *lifetime {
	l := &lifetime{}
	flags.BoolVar(&l.stdin, "stdin", false, "exit at the end of standard input, instead of with the parent's thread")
	return l
}

// follow returns a context that is cancelled when the lifetime is over.
func (l *lifetime) follow(ctx context.Context, s streams) (context.Context, context.CancelFunc, error) {
	if l.stdin {
		ctx, cancel := lifeline.FollowStdin(ctx, s.in)
		return ctx, cancel, nil
	}
	return ctx, func() {}, lifeline.FollowParent()
}

// checkPort checks the value of --port.
func checkPort(port int) error {
	if port < 0 || port > 65535 {
		return usageError("--port %d: must be from 0 to 65535", port)
	}
	return nil
}

func (c *cluster) connect() (*apiclient.Client, *rest.Config, error) {
	if c.dir == "" {
		return nil, nil, usageError("--dir is required")
	}
	admin, err := provision.ReadAdmin(c.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("no cluster in %s: %w", c.dir, err)
	}
	client, err := apiclient.New(admin)
	return client, admin, err
}

// target parses RESOURCE and NAME, the first two of want arguments, and returns a
// client.
func (c *cluster) target(args []string, want int) (*apiclient.Client, apiclient.Target, error) {
	if len(args) != want {
		return nil, apiclient.Target{}, usageError("%d arguments given, %d required", len(args), want)
	}
	t, err := apiclient.ParseTarget(args[0], args[1])
	if err != nil {
		return nil, t, usageError("%v", err)
	}
	client, _, err := c.connect()
	return client, t, err
}

func defineApply(flags *pflag.FlagSet) action {
	c := addDir(flags)
	file := flags.StringP("filename", "f", "", "YAML or JSON file, - for standard input")
	return func(ctx context.Context, s streams, args []string) error {
		if *file == "" || len(args) > 0 {
			return usageError("-f is required, and arguments are not accepted")
		}
		text, err := readInput(*file, s.in)
		if err != nil {
			return err
		}
		objects, err := manifests.Decode(text)
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		client, _, err := c.connect()
		if err != nil {
			return err
		}
		for _, object := range objects {
			name := strings.TrimPrefix(object.GetNamespace()+"/"+object.GetName(), "/")
			outcome, err := client.Apply(ctx, object)
			if err != nil {
				return fmt.Errorf("%s %s: %w", object.GetKind(), name, err)
			}
			fmt.Fprintf(s.out, "%s %s %s\n", object.GetKind(), name, outcome)
		}
		return nil
	}
}

func readInput(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("%s: more than %d bytes", name, maxInput)
	}
	return text, err
}

func defineGet(flags *pflag.FlagSet) action {
	c := addDir(flags)
	format := flags.StringP("output", "o", "yaml", "yaml or json")
	return func(ctx context.Context, s streams, args []string) error {
		if *format != "yaml" && *format != "json" {
			return usageError("-o %s: must be yaml or json", *format)
		}
		client, t, err := c.target(args, 2)
		if err != nil {
			return err
		}
		object, err := client.Get(ctx, t)
		if err != nil {
			return err
		}
		text, err := json.MarshalIndent(object.Object, "", "  ")
		if *format == "yaml" && err == nil {
			text, err = yaml.JSONToYAML(text)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.out, strings.TrimSuffix(string(text), "\n"))
		return err
	}
}

func definePatch(flags *pflag.FlagSet) action {
	c := addDir(flags)
	subresource := flags.String("subresource", "", "patch this subresource, for example status")
	return func(ctx context.Context, s streams, args []string) error {
		if len(args) == 3 && !json.Valid([]byte(args[2])) {
			return usageError("the patch is not JSON: %s", args[2])
		}
		client, t, err := c.target(args, 3)
		if err != nil {
			return err
		}
		var subresources []string
		if *subresource != "" {
			subresources = []string{*subresource}
		}
		return client.Patch(ctx, t, []byte(args[2]), subresources...)
	}
}

func defineDelete(flags *pflag.FlagSet) action {
	c := addDir(flags)
	wait := flags.Duration("wait", 0, "maximum time to wait until the object is gone (0: do not wait)")
	return func(ctx context.Context, s streams, args []string) error {
		client, t, err := c.target(args, 2)
		if err != nil {
			return err
		}
		uid, err := client.Delete(ctx, t)
		if err != nil || *wait <= 0 {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, *wait)
		defer cancel()
		return client.WaitGone(ctx, t, uid)
	}
}

func defineWait(flags *pflag.FlagSet) action {
	c := addDir(flags)
	condition := flags.String("for", "", `FIELD=VALUE; FIELD is a dotted path, in which "\." is a dot in a name`)
	timeout := flags.Duration("timeout", 30*time.Second, "give up after this time")
	return func(ctx context.Context, s streams, args []string) error {
		path, value, ok := strings.Cut(*condition, "=")
		if !ok || path == "" {
			return usageError("--for %q: expected FIELD=VALUE", *condition)
		}
		client, t, err := c.target(args, 2)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		return client.WaitField(ctx, t, path, value)
	}
}

func defineToken(flags *pflag.FlagSet) action {
	c := addDir(flags)
	name := flags.String("daemon", "", "clientmountd or nnf-dm")
	return func(ctx context.Context, s streams, args []string) error {
		daemon, err := provision.DaemonNamed(*name)
		if err == nil && len(args) > 0 {
			err = errors.New("unexpected arguments")
		}
		if err != nil {
			return usageError("%v", err)
		}
		client, admin, err := c.connect()
		if err != nil {
			return err
		}
		return daemon.Rotate(ctx, client, admin, c.dir)
	}
}
