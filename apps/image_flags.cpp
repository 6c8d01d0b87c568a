// The flags of volley image that no other verb has.
#include "apps/image_flags.h"

#include "core/base/error.h"
#include "image/image_job.h"

namespace volley::apps {

void add_image_flags(CLI::App& verb, ImageFlags& flags) {
  verb.add_option("prompt", flags.prompt, "what to draw: a class, or words that name an emoji of one")
      ->type_name("WORDS");
  add_text(verb, "--class", flags.class_name, "NAME", "what to draw: the exact name of a class");
  add_text(verb, "-f,--prompt-file", flags.prompt_file, "FILE|-",
           "what to draw, a line each: a prompt, or JSON with prompt or class, seed, count, name");
  add_integer(verb,
              {.names = "-n,--count",
               .meaning = "pictures, decoded together in batches of up to " +
                          std::to_string(image::kImageBatch) + " [1]",
               .low = 1,
               .high = image::kMaxCount},
              [&flags](int64_t value) { flags.count = value; });
  add_text(verb, "--seeds", flags.seeds, "N,N,..", "one picture of each of these seeds");
  verb.add_flag("--grid", flags.grid, "one file with all pictures side by side, instead of one each");
  add_integer(verb,
              {.names = "--quality", .meaning = "of JPEG [90], of WebP [lossless]", .low = 1, .high = 100},
              [&flags](int64_t value) { flags.quality = value; });
  add_integer(verb,
              {.names = "--steps",
               .meaning = "forwards of decoder parallel [the model's card]",
               .low = 1,
               .high = 65536},
              [&flags](int64_t value) { flags.shared.method.steps = value; });
  add_choice(verb, "--schedule", {"arccos", "cosine"}, "sizes of decoder parallel's steps [the model's card]",
             [&flags](size_t i) { flags.shared.method.schedule = i == 0 ? "arccos" : "cosine"; });
  add_choice(verb, "--order", {"random", "raster", "center"},
             "which cells decoder parallel decides first [random]", [&flags](size_t i) {
               flags.shared.method.order = i == 0 ? "random" : i == 1 ? "raster" : "center";
             });
  add_text(verb, "--init", flags.init, "FILE",
           "picture to change (PNG, JPEG, WebP), scaled and cropped to the model's square");
  add_text(verb, "--mask", flags.mask, "FILE", "what of --init to repaint: white; black is kept");
  add_number(verb,
             {.names = "--strength",
              .meaning = "share of --init's cells to repaint when there is no mask [0.75]",
              .low = 0.0,
              .high = 1.0},
             [&flags](double value) { flags.strength = value; });
  add_integer(verb,
              {.names = "--feather",
               .meaning = "pixels around what is repainted that are blended; 0: hard edge [half a cell]",
               .low = 0,
               .high = image::kMaxFeather},
              [&flags](int64_t value) { flags.feather = value; });
  add_text(verb, "--outpaint", flags.outpaint, "SIDE[=N],..",
           "widen --init by N cells to the left, right, up, down [half a square]");
  verb.add_option_function<std::vector<std::string>>(
          "--preview",
          [&flags](const std::vector<std::string>& places) {
            for (const std::string& place : places) {
              if (place.empty()) throw Error("--preview: is empty", ErrorKind::kUsage);
              flags.previews.push_back(place);
            }
          },
          "show the picture in the making: a file to replace, or term for the terminal")
      ->type_name("FILE|term")
      ->expected(1)
      ->take_all();
  add_integer(verb,
              {.names = "--preview-every",
               .meaning = "steps between previews [0: at most two a second]",
               .low = 0,
               .high = 65536},
              [&flags](int64_t value) { flags.preview_every = value; });
  add_text(verb, "--animate", flags.animate, "FILE",
           "how the picture filled in: .webp, .png or .gif; several need %03d");
  add_text(verb, "--step-map", flags.step_map, "FILE",
           "PNG of the cells, coloured by the step that decided them");
}

}  // namespace volley::apps
