//go:build node && linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/previous"
)

// packages finds commands of the distribution's packages. If some are missing, it installs them
// with apt-get, or fails if there is no apt-get.
func (p *prepared) packages(ctx context.Context) error {
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		if _, err := exec.LookPath(filepath.Join(dir, "bridge")); err == nil {
			p.CNI = dir
		}
	}
	var missing []string
	if p.CNI == "" {
		missing = append(missing, "containernetworking-plugins")
	}
	for tool, pkg := range map[string]string{
		"containerd": "containerd", "runc": "runc", "iptables": "iptables", "conntrack": "conntrack", "ip": "iproute2",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing on this machine, by the names that Debian gives their packages: %s; install them",
			strings.Join(missing, ", "))
	}
	p.say("Installing packages with apt-get: %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-qq"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w; install %s yourself\n%s", args[0], err, strings.Join(missing, ", "), out)
		}
	}
	if slices.Contains(missing, "containernetworking-plugins") {
		return p.packages(ctx) // to find the folder of the plugins
	}
	return nil
}

// build builds everything that may need a network: the servers, the workload's program, and the
// previous release and this version of the operator.
func (p *prepared) build(ctx context.Context) (err error) {
	p.say("Servers: built where your cache folder does not hold them, which takes some minutes the first time")
	p.Kube, err = build.Kube(ctx, os.Stderr, "etcd", "kube-apiserver", "kube-controller-manager", "kubectl",
		"kube-proxy", "kube-scheduler", "kubelet")
	if err != nil {
		return err
	}
	if _, err := build.Notary(ctx, os.Stderr); err != nil {
		return err
	}
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	before, err := previous.Build(ctx, os.Stderr)
	if err != nil {
		return err
	}
	p.say("Building the workload's program, and the operator's image with its manifests: release %s, and this version",
		previous.Version)
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o",
		filepath.Join(p.Dir, "sleep"), "./test/node/testdata/sleep")
	compile.Dir, compile.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("building the workload's program: %w\n%s", err, out)
	}
	r, err := startRegistry(0)
	if err != nil {
		return err
	}
	defer r.stop()
	p.Port = r.port
	images, err := layout.Write(filepath.Join(p.Dir, "images"), empty.Index)
	if err != nil {
		return err
	}
	installed := version{
		Version: "v" + previous.Version, Platforms: "linux/" + arch(), Source: before.Source, Replicas: 3,
	}
	upgraded, err := release(root)
	if err != nil {
		return err
	}
	for i, o := range []version{installed, upgraded} {
		if err := p.buildOperator(ctx, filepath.Join(p.Dir, "dist", strconv.Itoa(i)),
			r.host()+"/countersign/countersign", &o); err != nil {
			return err
		}
		if err := keep(images, o.Image); err != nil {
			return err
		}
		p.Operators = append(p.Operators, o)
	}
	if p.Operators[0].Image == p.Operators[1].Image {
		return errors.New("both versions of the operator have the same digest: an upgrade would not replace a Pod")
	}
	p.OnHost = p.Operators[1]
	p.OnHost.Replicas = 1 // replicas in the node's network use the same ports, and there is one node
	return p.render(ctx, filepath.Join(p.Dir, "dist", "host"), "host-network", &p.OnHost)
}

// release returns the version to upgrade to. If make has VERSION and IMAGE, it is that release.
func release(root string) (version, error) {
	o := version{Version: os.Getenv("VERSION"), Released: os.Getenv("IMAGE"), Source: root, Replicas: 3}
	switch {
	case o.Version == "" && o.Released == "":
		o.Version, o.Platforms = "v"+previous.Version+"-next", "linux/"+arch()
		return o, nil
	case o.Version == "" || !strings.Contains(o.Released, "@sha256:"):
		return o, fmt.Errorf("VERSION=%q IMAGE=%q: give the version of a release with its image by digest, or neither",
			o.Version, o.Released)
	}
	o.Platforms = "linux/amd64,linux/arm64"
	return o, nil
}

// buildOperator builds and pushes an image, and renders its manifests, with the project's own make
// targets. It does not change the folder dist of the sources.
func (p *prepared) buildOperator(ctx context.Context, dist, image string, o *version) error {
	if err := p.make(ctx, o.Source, "image", "DIST="+dist, "IMAGE="+image, "VERSION="+o.Version,
		"PLATFORMS="+o.Platforms); err != nil {
		return err
	}
	reference, err := os.ReadFile(filepath.Join(dist, "image.txt"))
	if err != nil {
		return fmt.Errorf("reading the reference of the image: %w", err)
	}
	o.Image = strings.TrimSpace(string(reference))
	if err := o.isReleased(); err != nil {
		return err
	}
	return p.render(ctx, dist, "", o)
}

// render writes the manifests of a version with components, and sets their path in o.
func (p *prepared) render(ctx context.Context, dist, components string, o *version) error {
	if err := p.make(ctx, o.Source, "install-yaml", "DIST="+dist, "IMAGE="+o.Image,
		"COMPONENTS="+components); err != nil {
		return err
	}
	o.Manifests = filepath.Join(dist, "install.yaml")
	manifests, err := os.ReadFile(o.Manifests)
	if err != nil {
		return fmt.Errorf("reading the manifests: %w", err)
	}
	if !bytes.Contains(manifests, []byte(o.Image)) {
		return fmt.Errorf("%s does not name %s", o.Manifests, o.Image)
	}
	return nil
}

// isReleased checks that the image equals the released one to the byte. Then this test runs the
// image that is signed.
func (o *version) isReleased() error {
	_, built, _ := strings.Cut(o.Image, "@")
	if _, released, _ := strings.Cut(o.Released, "@"); o.Released != "" && built != released {
		return fmt.Errorf(
			"this checkout builds %s of version %s, and %s was released: check that it is the tag without changes, and "+
				"the same version of Go", built, o.Version, o.Released)
	}
	return nil
}

func (p *prepared) make(ctx context.Context, root string, args ...string) error {
	cmd := exec.CommandContext(ctx, "make", append([]string{"--no-print-directory", "-C", root}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// keep copies an image from a registry into a folder, with the same digest.
func keep(images layout.Path, reference string) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("parsing the reference of the image: %w", err)
	}
	desc, err := remote.Get(ref)
	if err != nil {
		return fmt.Errorf("reading back %s: %w", ref, err)
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return err
		}
		return images.AppendIndex(index)
	}
	image, err := desc.Image()
	if err != nil {
		return err
	}
	return images.AppendImage(image)
}
