package integration

// object is a minimal valid object of a kind, in the older served version. newer is
// the stored version.
type object struct {
	resource, group, older, newer, yaml string
}

const clientMount = `
apiVersion: dataworkflowservices.github.io/v1alpha6
kind: ClientMount
metadata:
  name: sample
  namespace: compute-01
  labels:
    nnf.cray.hpe.com/target_directive_index: "0"
    nnf.cray.hpe.com/pinned_storage_profile_name: job7-0
spec:
  node: compute-01
  desiredState: mounted
  mounts:
  - mountPath: /mnt/nnf/11110000-0000-4000-8000-00000000000a-0
    type: gfs2
    targetType: directory
    options: ""
    setPermissions: false
    device:
      type: lvm
      deviceReference:
        objectReference: {kind: NnfNodeStorage, name: default-job7-0-gfs2-0, namespace: rabbit-01}
        data: 3
      lvm:
        deviceType: nvme
        nvmeInfo:
        - {deviceSerial: "nqn.2014-08.org.example:disk0", namespaceID: "12", namespaceGUID: ""}
`

const dws, nnf, lus = "dataworkflowservices.github.io", "nnf.cray.hpe.com", "lus.cray.hpe.com"

var objects = []object{
	{"clientmounts", dws, "v1alpha6", "v1alpha7", clientMount},
	{"workflows", dws, "v1alpha6", "v1alpha7", `
apiVersion: dataworkflowservices.github.io/v1alpha6
kind: Workflow
metadata: {name: sample, namespace: compute-01}
spec: {userID: 1001, groupID: 100, jobID: f9Tk}
status: {state: PreRun, status: Completed, ready: true, env: {DW_JOB_a: /mnt/a}}
`},
	{"systemconfigurations", dws, "v1alpha6", "v1alpha7", `
apiVersion: dataworkflowservices.github.io/v1alpha6
kind: SystemConfiguration
metadata: {name: sample, namespace: compute-01}
spec:
  storageNodes:
  - {type: Rabbit, name: rabbit-01, computesAccess: [{name: compute-01, index: 0}, {name: compute-02, index: 1}]}
  externalComputeNodes: [{name: login-01}]
  ports: [5000, "6000-6010"]
`},
	{"servers", dws, "v1alpha6", "v1alpha7", `
apiVersion: dataworkflowservices.github.io/v1alpha6
kind: Servers
metadata: {name: sample, namespace: compute-01}
spec: {allocationSets: [{label: ost, storage: [{name: rabbit-01, allocationCount: 2}]}]}
`},
	{"nnfstorages", nnf, "v1alpha10", "v1alpha11", `
apiVersion: nnf.cray.hpe.com/v1alpha10
kind: NnfStorage
metadata: {name: sample, namespace: compute-01}
`},
	{"nnfstorageprofiles", nnf, "v1alpha10", "v1alpha11", `
apiVersion: nnf.cray.hpe.com/v1alpha10
kind: NnfStorageProfile
metadata: {name: sample, namespace: compute-01}
data:
  pinned: true
  gfs2Storage:
    variableOverride: {$LV_NAME: lv}
    blockDeviceCommands:
      sharedVg: true
      computeCommands:
        vgChange: {lockStart: --lock-start $VG_NAME}
        lvChange: {activate: --activate ys $VG_NAME/$LV_NAME}
        userCommands: {preActivate: [a, b]}
    fileSystemCommands:
      computeCommands: {mount: $DEVICE $MOUNT_PATH, unmount: $MOUNT_PATH, userCommands: {postMount: [c]}}
  lustreStorage:
    clientOptions: {commandlines: {mountCompute: "$MGS_NID:/$FS_NAME $MOUNT_PATH", computePreMount: [d]}}
`},
	{"nnfdatamovements", nnf, "v1alpha10", "v1alpha11", `
apiVersion: nnf.cray.hpe.com/v1alpha10
kind: NnfDataMovement
metadata: {name: sample, namespace: compute-01}
spec:
  source: {path: /mnt/a/out/, storageReference: {kind: NnfNodeStorage, name: default-job7-0-gfs2-0, namespace: rabbit-01}}
  destination: {path: /lus/global/alice/out/}
  userId: 1001
  groupId: 100
  profileReference: {kind: NnfDataMovementProfile, name: default, namespace: nnf-system}
  userConfig: {slots: 8}
`},
	{"nnfdatamovementprofiles", nnf, "v1alpha10", "v1alpha11", `
apiVersion: nnf.cray.hpe.com/v1alpha10
kind: NnfDataMovementProfile
metadata: {name: sample, namespace: compute-01}
data: {default: true}
`},
	{"lustrefilesystems", lus, "v1alpha1", "v1beta1", `
apiVersion: lus.cray.hpe.com/v1alpha1
kind: LustreFileSystem
metadata: {name: sample, namespace: compute-01}
spec: {name: global, mgsNids: 10.0.0.1@tcp, mountRoot: /lus/global, namespaces: {default: {modes: [ReadWriteMany]}}}
`},
}
