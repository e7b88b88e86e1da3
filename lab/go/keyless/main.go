// Command keyless signs container image digests without keys that last, as Fulcio, Rekor, a CT log
// and a timestamp authority would, all of them made here and forgotten when the program ends.
//
// It reads a request (images, and the identity that signs them) and writes the trusted root and,
// for each image, either a Sigstore bundle or the parts of cosign's older form. No network.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// image is one thing to sign. Form is "bundle" or "sig"; Name is where it is published, and stands
// in the older form's payload.
type image struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Form   string `json:"form"`
}

// request names the images and who signs them, in the words of an OpenID Connect provider.
type request struct {
	Issuer   string  `json:"issuer"`
	Identity string  `json:"identity"`
	Images   []image `json:"images"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: keyless REQUEST.json FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "keyless:", err)
		os.Exit(1)
	}
}

func run(requestPath, folder string) error {
	text, err := os.ReadFile(requestPath)
	if err != nil {
		return err
	}
	var wanted request
	if err := json.Unmarshal(text, &wanted); err != nil {
		return fmt.Errorf("%s: %w", requestPath, err)
	}
	instance, err := newInstance()
	if err != nil {
		return err
	}
	// All entries go into the log before any proof is made, so that the proofs have a tree to climb.
	signed := make([]*signature, 0, len(wanted.Images))
	for _, one := range wanted.Images {
		made, err := instance.sign(one, wanted.Identity, wanted.Issuer)
		if err != nil {
			return fmt.Errorf("%s: %w", one.Name, err)
		}
		signed = append(signed, made)
	}
	results := make([]json.RawMessage, 0, len(signed))
	for _, one := range signed {
		document, err := one.document(instance)
		if err != nil {
			return fmt.Errorf("%s: %w", one.image.Name, err)
		}
		results = append(results, document)
	}
	root, err := instance.trustedRoot()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "trusted_root.json"), root, 0o644); err != nil {
		return err
	}
	answer, err := json.Marshal(results)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "signatures.json"), answer, 0o644)
}
