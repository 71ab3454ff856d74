package controlplane

import (
	"context"
	"net"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	generic "k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
)

// issuer is the "iss" claim of requested tokens.
const issuer = "https://kubernetes.default.svc"

type runner interface{ Run(context.Context) error }

// prepareServer configures the generic control plane through its flags, because its
// option structs change between releases.
func prepareServer(ctx context.Context, c Config) (runner, error) {
	options := generic.NewOptions()
	var sets cliflag.NamedFlagSets
	options.AddFlags(&sets)
	flags := pflag.NewFlagSet("devcluster", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	loopback := net.IPv4(127, 0, 0, 1)
	options.SecureServing.Listener = c.Listener
	options.SecureServing.BindPort = c.Listener.Addr().(*net.TCPAddr).Port
	options.SecureServing.ExternalAddress = loopback
	err := flags.Parse(append([]string{
		"--etcd-servers=unix://" + c.ClientSocket,
		"--bind-address=" + loopback.String(),
		"--advertise-address=" + loopback.String(),
		"--tls-cert-file=" + c.ServerCert,
		"--tls-private-key-file=" + c.ServerKey,
		"--client-ca-file=" + c.CAFile,
		"--authorization-mode=RBAC",
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + c.SignerFile,
		"--service-account-signing-key-file=" + c.SignerFile,
		"--profiling=false",
	}, c.Args...))
	if err != nil {
		return nil, err
	}
	completed, err := options.Complete(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := generic.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	// The default is three masters, which delays each new definition by 5 s.
	config.APIExtensions.ExtraConfig.MasterCount = 1
	ready, err := config.Complete()
	if err != nil {
		return nil, err
	}
	chain, err := generic.CreateServerChain(ready)
	if err != nil {
		return nil, err
	}
	return chain.PrepareRun()
}
