package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// administrators is the group that may do everything at every API server. So only the policies refuse a
// request of one of its members.
const administrators = "system:masters"

// attempt is a request that a policy must refuse, and no other check.
type attempt struct {
	daemon   string
	resource kube.Resource
	versions []string
	object   func(version string) any
}

var attempts = []attempt{
	{"clientmountd", kube.Resource{Group: api.GroupDWS, Plural: "clientmounts", Kind: "ClientMount"}, api.VersionsDWS, func(version string) any {
		// With all fields that a schema requires: it is checked first.
		return identities.Object{"apiVersion": version, "kind": "ClientMount", "metadata": identities.Object{"name": probe, "namespace": metav1.NamespaceDefault},
			"spec": identities.Object{"node": probe, "desiredState": "unmounted", "mounts": []any{identities.Object{
				"mountPath": "/mnt/" + probe, "type": "lustre", "targetType": "directory", "setPermissions": false, "options": "",
				"device": identities.Object{"type": "lustre", "lustre": identities.Object{"fileSystemName": probe, "mgsAddresses": "localhost"}},
			}}}}
	}},
	{"nnf-dm", kube.Resource{Group: api.GroupNNF, Plural: "nnfdatamovements", Kind: nnf.KindDataMovement}, api.VersionsNNF, func(version string) any {
		return identities.Object{"apiVersion": version, "kind": nnf.KindDataMovement, "metadata": identities.Object{"name": probe, "namespace": metav1.NamespaceDefault}, "spec": identities.Object{}}
	}},
}

// probe is the name of the objects in the attempts, which are never stored.
const probe = "compute-daemons-probe"

// Enforced reports whether the API server refuses what the policies refuse. It sends requests that
// the accounts of a node must not be permitted, on behalf of these accounts and with all rights, as
// dry runs. The accounts need not exist.
func (s *Server) Enforced(ctx context.Context, node string) (bool, error) {
	for _, a := range attempts {
		version, err := s.client.Served(ctx, a.resource, a.versions)
		if err != nil {
			return false, err
		}
		d, _ := product.Of(a.daemon)
		r := a.resource
		r.Version = version
		user := d.NodeAccount(node).User()
		err = s.do(ctx, func() error {
			return s.client.TryCreate(ctx, r, metav1.NamespaceDefault, a.object(r.Group+"/"+version), user, administrators)
		})
		switch {
		case err == nil:
			return false, nil
		case kube.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+identities.PolicyName(d)+"'"):
		case kube.IsForbidden(err):
			return false, fmt.Errorf("the administrator may not impersonate %s in the group %s, so it cannot be checked whether the policies are enforced: %w", user, administrators, err)
		default:
			return false, fmt.Errorf("it cannot be checked whether the policies are enforced: %w", err)
		}
	}
	return true, nil
}

// ErrNotEnforced means that the API server does not use the policies.
var ErrNotEnforced = errors.New("the API server does not enforce the admission policies, without which the account of a node could change what it must not: check that its admission plugin ValidatingAdmissionPolicy is not disabled")

// Times for AwaitEnforced. An API server uses a policy when its watch has delivered it.
const (
	enforcedLimit    = time.Minute
	enforcedInterval = 250 * time.Millisecond
	otherServers     = 2 * time.Second
)

// AwaitEnforced returns when the API server enforces the policies. If they have changed, it also
// waits for other API servers of the cluster.
func (s *Server) AwaitEnforced(ctx context.Context, node string, changed bool) error {
	for started := time.Now(); ; {
		enforced, err := s.Enforced(ctx, node)
		if err != nil {
			return err
		}
		if enforced {
			break
		}
		if time.Since(started) > enforcedLimit {
			return ErrNotEnforced
		}
		kube.Pause(ctx, enforcedInterval)
	}
	if changed {
		kube.Pause(ctx, otherServers)
	}
	return ctx.Err()
}
