// Command schematic-oracle answers what the Image Factory's YAML library makes of a schematic.
//
// It reads one JSON object per line, {"input_base64": "..."}, and writes one per line:
// {"canonical": "..."}, {"error": "..."} or {"unstable": true}. The struct below states the schematic's wire format;
// reading is strict and the text is what the library marshals, as the vectors in
// schematics.json show.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"
)

// stabilityRuns is how often a text is written again to see whether it is always the same.
const stabilityRuns = 6

type bootloader int

var bootloaderNames = []string{"none", "dual-boot", "sd-boot", "grub"}

func (b bootloader) MarshalText() ([]byte, error) { return []byte(bootloaderNames[b]), nil }

func (b *bootloader) UnmarshalText(text []byte) error {
	for i, name := range bootloaderNames {
		if name == strings.ToLower(string(text)) {
			*b = bootloader(i)

			return nil
		}
	}

	return fmt.Errorf("%s is not a bootloader", text)
}

type metaValue struct {
	Key   uint8  `yaml:"key"`
	Value string `yaml:"value"`
}

type overlay struct {
	Image   string         `yaml:"image"`
	Name    string         `yaml:"name"`
	Options map[string]any `yaml:"options,omitempty"`
}

type extensions struct {
	Official []string `yaml:"officialExtensions,omitempty"`
}

type secureBoot struct {
	EnrollKeys       string `yaml:"enrollKeys,omitempty"`
	IncludeWellKnown bool   `yaml:"includeWellKnownCertificates,omitempty"`
}

type diskImage struct {
	SectorSize uint `yaml:"sectorSize,omitempty"`
}

type customization struct {
	Embedded   string      `yaml:"embeddedMachineConfiguration,omitempty"`
	KernelArgs []string    `yaml:"extraKernelArgs,omitempty"`
	Meta       []metaValue `yaml:"meta,omitempty"`
	Extensions extensions  `yaml:"systemExtensions,omitempty"`
	Bootloader bootloader  `yaml:"bootloader,omitempty"`
	SecureBoot secureBoot  `yaml:"secureboot,omitempty"`
	DiskImage  diskImage   `yaml:"diskImage,omitempty"`
}

type schematic struct {
	Owner         string        `yaml:"owner,omitempty"`
	Overlay       overlay       `yaml:"overlay,omitempty"`
	Customization customization `yaml:"customization"`
}

type answer struct {
	Canonical string `json:"canonical,omitempty"`
	Error     string `json:"error,omitempty"`
	Unstable  bool   `json:"unstable,omitempty"`
}

// answerFor recovers, because a few inputs make the library panic; the factory then answers nothing.
func answerFor(input []byte) (reply answer) {
	defer func() {
		if cause := recover(); cause != nil {
			reply = answer{Error: fmt.Sprintf("panic: %v", cause)}
		}
	}()

	var value schematic

	decoder := yaml.NewDecoder(bytes.NewReader(input))
	decoder.KnownFields(true)

	if err := decoder.Decode(&value); err != nil {
		return answer{Error: err.Error()}
	}

	if value.Owner != "" {
		return answer{Error: "owner is set"}
	}

	text, err := yaml.Marshal(value)
	if err != nil {
		return answer{Error: err.Error()}
	}

	// A few sets of keys (NaN, two dates) have no order, and the text then changes from run to run.
	for range stabilityRuns {
		again, err := yaml.Marshal(value)
		if err != nil || !bytes.Equal(text, again) {
			return answer{Unstable: true}
		}
	}

	return answer{Canonical: string(text)}
}

func main() {
	reader := bufio.NewReaderSize(os.Stdin, 1<<20)
	writer := bufio.NewWriter(os.Stdout)

	for {
		line, err := reader.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var request struct {
				Input []byte `json:"input_base64"`
			}

			if decodeErr := json.Unmarshal(line, &request); decodeErr != nil {
				fmt.Fprintln(os.Stderr, decodeErr)
				os.Exit(1)
			}

			encoder := json.NewEncoder(writer)
			encoder.SetEscapeHTML(false)

			if encodeErr := encoder.Encode(answerFor(request.Input)); encodeErr != nil {
				fmt.Fprintln(os.Stderr, encodeErr)
				os.Exit(1)
			}

			writer.Flush() //nolint:errcheck
		}

		if err != nil {
			return
		}
	}
}
