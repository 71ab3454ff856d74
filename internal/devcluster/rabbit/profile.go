package rabbit

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

const profileNamespace = "nnf-system"

// Default commands of profiles.
const (
	defaultCommand = "ulimit -n 2048 && mpirun --allow-run-as-root --hostfile $HOSTFILE dcp --progress 1 --uid $UID --gid $GID $SRC $DEST"
	defaultStat    = "stat -c %F $PATH"
	defaultMkdir   = "mkdir -p $PATH"
	defaultSetpriv = "setpriv --euid $UID --egid $GID --clear-groups"
)

// profile is the content of an NnfDataMovementProfile.
type profile struct {
	Slots                   int    `json:"slots"`
	MaxSlots                int    `json:"maxSlots"`
	Command                 string `json:"command"`
	StatCommand             string `json:"statCommand"`
	MkdirCommand            string `json:"mkdirCommand"`
	SetprivCommand          string `json:"setprivCommand"`
	LogStdout               bool   `json:"logStdout"`
	StoreStdout             bool   `json:"storeStdout"`
	ProgressIntervalSeconds int    `json:"progressIntervalSeconds"`
	CreateDestDir           bool   `json:"createDestDir"`
}

// interval returns the time between two progress updates, at least one second.
func (p profile) interval() time.Duration {
	return time.Duration(max(1, p.ProgressIntervalSeconds)) * time.Second
}

func defaultProfile() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": profiles.GroupVersion().String(),
		"kind":       "NnfDataMovementProfile",
		"metadata":   map[string]any{"name": "default", "namespace": profileNamespace},
		"data": map[string]any{
			"default": true, "slots": int64(8), "maxSlots": int64(0),
			"command": defaultCommand, "statCommand": defaultStat, "mkdirCommand": defaultMkdir, "setprivCommand": defaultSetpriv,
			"progressIntervalSeconds": int64(1), "createDestDir": true, // the default, 5 s, would make tests slow
		},
	}}
}

// profile reads the profile of the movement.
func (r *rabbit) profile(ctx context.Context, ref reference) (profile, error) {
	if ref.Kind != "" && ref.Kind != "NnfDataMovementProfile" {
		return profile{}, invalid("User", "profileReference has kind %q instead of NnfDataMovementProfile", ref.Kind)
	}
	object, err := r.Client.Resource(profiles).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || ref.Name == "" {
		return profile{}, invalid("User", "could not find NnfDataMovementProfile %s/%s", ref.Namespace, ref.Name)
	}
	if err != nil {
		return profile{}, minor("read NnfDataMovementProfile %s/%s: %v", ref.Namespace, ref.Name, err)
	}
	var whole struct {
		Data profile `json:"data"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &whole); err != nil {
		return profile{}, fmt.Errorf("NnfDataMovementProfile %s: %w", ref.Name, err)
	}
	p := whole.Data
	for field, text := range map[*string]string{&p.Command: defaultCommand, &p.StatCommand: defaultStat, &p.MkdirCommand: defaultMkdir, &p.SetprivCommand: defaultSetpriv} {
		if *field == "" {
			*field = text
		}
	}
	return p, nil
}
