package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/provision"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/rabbit"
)

type rabbitOptions struct {
	cluster      *cluster
	lifetime     *lifetime
	namespaces   []string
	maps, faults []string
	anyStorage   bool
	parallel     int
}

func defineRabbit(flags *pflag.FlagSet) action {
	o := rabbitOptions{cluster: addDir(flags), lifetime: addLifetime(flags)}
	flags.StringSliceVar(&o.namespaces, "namespace", []string{"rabbit-01", rabbit.SystemNamespace}, "namespaces of the movements to process: the name of the rabbit, and "+rabbit.SystemNamespace+" for Lustre")
	flags.StringArrayVar(&o.maps, "map", nil, "/FROM=/TO: directory of the rabbit, and where it is on this machine; the longest matching FROM is used")
	flags.StringArrayVar(&o.faults, "fault", nil, "'PATTERN NAME=VALUE...': hold=true delay=2s minor=N invalid=TEXT rate=64k exit=CODE die=1s storm=PER-SECOND;\n"+
		"PATTERN is matched against NAMESPACE/NAME and the paths, * matches any text; rules in the file D/rabbit/faults, which is re-read on each use, take precedence")
	flags.BoolVar(&o.anyStorage, "any-storage", false, "process Lustre movements even if their NnfStorage does not exist")
	flags.IntVar(&o.parallel, "parallel", 8, "number of concurrent copies")
	return func(ctx context.Context, s streams, args []string) error {
		config, err := o.config(args)
		if err != nil {
			return err
		}
		return o.run(ctx, s, config)
	}
}

func (o *rabbitOptions) config(args []string) (rabbit.Config, error) {
	c := rabbit.Config{Namespaces: o.namespaces, AnyStorage: o.anyStorage, Parallel: o.parallel}
	switch {
	case len(args) > 0:
		return c, usageError("unexpected arguments")
	case o.cluster.dir == "":
		return c, usageError("--dir is required")
	case len(o.namespaces) == 0:
		return c, usageError("--namespace is empty")
	}
	for _, name := range o.namespaces {
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return c, usageError("--namespace %q: %s", name, problems[0])
		}
	}
	for _, text := range o.maps {
		m, err := rabbit.ParseMapping(text)
		if err != nil {
			return c, usageError("--map %v", err)
		}
		c.Maps = append(c.Maps, m)
	}
	for _, text := range o.faults {
		f, err := rabbit.ParseRule(text)
		if err != nil {
			return c, usageError("--fault: %v", err)
		}
		c.Faults = append(c.Faults, f)
	}
	return c, nil
}

func (o *rabbitOptions) run(ctx context.Context, s streams, c rabbit.Config) error {
	ctx, cancel, err := o.lifetime.follow(ctx, s)
	if err != nil {
		return err
	}
	defer cancel()
	admin, err := provision.ReadAdmin(o.cluster.dir)
	if err != nil {
		return fmt.Errorf("no cluster in %s: %w", o.cluster.dir, err)
	}
	if c.Client, err = dynamic.NewForConfig(admin); err != nil {
		return err
	}
	if c.Dir, err = filepath.Abs(filepath.Join(o.cluster.dir, rabbitDir)); err != nil {
		return err
	}
	if c.Program, err = os.Executable(); err != nil {
		return err
	}
	closeLog, err := redirectLogs(os.DevNull, false, s.err) // log of the watches; the log of the cluster is kept
	if err != nil {
		return err
	}
	defer closeLog()
	c.Log = s.progress
	c.Ready = func() { fmt.Fprintf(s.out, "ready rabbit %s\n", strings.Join(c.Namespaces, ",")) }
	return rabbit.Run(ctx, c)
}
