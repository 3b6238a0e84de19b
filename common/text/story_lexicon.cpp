// The tables of the story world. To make the world larger, add rows. Only names and places are
// counted elsewhere (story_lexicon.h): who is a child, what is a home, and who lives where.
#include "common/text/story_lexicon.h"

#include <array>

namespace llm {
namespace {

using Tables = std::array<Table, static_cast<std::size_t>(Kind::kCount)>;

Tables make_tables() {
  Tables tables;
  const auto table = [&](Kind kind) -> Table& { return tables[static_cast<std::size_t>(kind)]; };

  table(Kind::kName) = {"a name",
                        {"", "kind", "he", "him", "his"},
                        {// children
                         {"Mia", "girl", "she", "her", "her"},
                         {"Tom", "boy", "he", "him", "his"},
                         {"Nora", "girl", "she", "her", "her"},
                         {"Ben", "boy", "he", "him", "his"},
                         {"Lily", "girl", "she", "her", "her"},
                         {"Max", "boy", "he", "him", "his"},
                         {"Anna", "girl", "she", "her", "her"},
                         {"Leo", "boy", "he", "him", "his"},
                         // animals
                         {"Pip", "mouse", "he", "him", "his"},
                         {"Rufus", "dog", "he", "him", "his"},
                         {"Fred", "frog", "he", "him", "his"},
                         {"Otto", "bear", "he", "him", "his"},
                         {"Greta", "goose", "she", "her", "her"},
                         {"Felix", "fox", "he", "him", "his"},
                         {"Dora", "duck", "she", "her", "her"},
                         {"Momo", "cat", "she", "her", "her"}}};

  table(Kind::kTrait) = {
      "what somebody is like",
      {""},
      {{"brave"}, {"small"}, {"curious"}, {"hungry"}, {"sleepy"}, {"clever"}, {"noisy"}, {"polite"}}};

  table(Kind::kWeather) = {
      "the weather", {""}, {{"sunny"}, {"windy"}, {"rainy"}, {"snowy"}, {"foggy"}, {"warm"}}};

  table(Kind::kDaytime) = {"a time of day", {""}, {{"day"}, {"morning"}, {"afternoon"}, {"evening"}}};

  table(Kind::kPlace) = {"a place",
                         {"", "at"},
                         {// at home: kHomes
                          {"garden", "in the garden"},
                          {"kitchen", "in the kitchen"},
                          {"barn", "in the barn"},
                          {"attic", "in the attic"},
                          {"library", "in the library"},
                          {"castle", "in the castle"},
                          {"cellar", "in the cellar"},
                          {"tower", "in the tower"},
                          // away; a child and an animal live at each, in the order of the names
                          {"market", "at the market"},
                          {"hill", "on the hill"},
                          {"pond", "at the pond"},
                          {"forest", "in the forest"},
                          {"beach", "on the beach"},
                          {"bridge", "on the bridge"},
                          {"river", "at the river"},
                          {"island", "on the island"}}};

  table(Kind::kMove) = {
      "a way of going", {""}, {{"walked"}, {"ran"}, {"skipped"}, {"hopped"}, {"tiptoed"}, {"marched"}}};

  table(Kind::kColour) = {
      "a colour or a size",
      {""},
      {{"red"}, {"blue"}, {"green"}, {"yellow"}, {"shiny"}, {"tiny"}, {"giant"}, {"striped"}}};

  table(Kind::kThing) = {
      "a thing", {""}, {{"kite"},   {"drum"},      {"hat"},     {"boat"},    {"ball"},   {"bell"},
                        {"book"},   {"parasol"},   {"lamp"},    {"whistle"}, {"bucket"}, {"blanket"},
                        {"mirror"}, {"wagon"},     {"trumpet"}, {"balloon"}, {"scarf"},  {"basket"},
                        {"teapot"}, {"telescope"}, {"fiddle"},  {"puppet"},  {"sled"},   {"crown"}}};

  table(Kind::kUse) = {"a use for a thing",
                       {""},
                       {// two for each thing, in the order of the things
                        {"fly it to the moon"},
                        {"lift the cat with it"},
                        {"wake the king"},
                        {"scare the rain away"},
                        {"wear it in bed"},
                        {"hide a cake under it"},
                        {"sail it across the soup"},
                        {"take the bees to sea"},
                        {"roll it down the stairs"},
                        {"play with the king"},
                        {"ring it at noon"},
                        {"tell the cows the time"},
                        {"read it to the cows"},
                        {"stand on it and look tall"},
                        {"keep the fish dry"},
                        {"fly away like a leaf"},
                        {"read under the bed"},
                        {"show the moon the way"},
                        {"call the clouds"},
                        {"answer the birds"},
                        {"carry the sea home"},
                        {"wear it as a hat"},
                        {"make a tent"},
                        {"keep the snowman warm"},
                        {"wave at the sun"},
                        {"look at the stars"},
                        {"pull a pumpkin home"},
                        {"race the wind"},
                        {"talk to the elephants"},
                        {"play for the bees"},
                        {"float over the town"},
                        {"give the moon a hug"},
                        {"tie up the wind"},
                        {"keep an elephant warm"},
                        {"collect the stars"},
                        {"carry the cat around"},
                        {"make tea for the bees"},
                        {"keep a fish in it"},
                        {"count the stars"},
                        {"look for lost socks"},
                        {"make the cows dance"},
                        {"play the sun to sleep"},
                        {"make the king laugh"},
                        {"have somebody to talk to"},
                        {"ride it down the stairs"},
                        {"pull the cat around"},
                        {"rule over the cows"},
                        {"look like a king"}}};

  table(Kind::kDeed) = {"something to do",
                        {"", "did"},
                        {{"moo like a cow", "mooed like a cow"},
                         {"roar like a lion", "roared like a lion"},
                         {"stand on one leg", "stood on one leg"},
                         {"sing to the moon", "sang to the moon"},
                         {"dance in the rain", "danced in the rain"},
                         {"count to ten", "counted to ten"},
                         {"hug a tree", "hugged a tree"},
                         {"eat a sock", "ate a sock"},
                         {"paint a snail", "painted a snail"},
                         {"tickle a bear", "tickled a bear"},
                         {"bow to a bee", "bowed to a bee"},
                         {"bake a cake", "baked a cake"},
                         {"kiss a fish", "kissed a fish"},
                         {"sleep in a boot", "slept in a boot"},
                         {"wash a cow", "washed a cow"},
                         {"jump over a puddle", "jumped over a puddle"}}};

  table(Kind::kJunk) = {"what lies about",
                        {""},
                        {{"shoe"}, {"stone"}, {"spoon"}, {"leaf"}, {"bone"}, {"snail"}, {"button"}, {"nut"}}};

  // Each spot has the one tool that helps there: the tool of the same row.
  table(Kind::kSpot) = {"a spot where things get stuck",
                        {"", "the"},
                        {{"up in a tall tree", "the tree"},
                         {"down in a deep well", "the well"},
                         {"under a sleeping cow", "the cow"},
                         {"inside a locked box", "the box"},
                         {"behind a hot stove", "the stove"},
                         {"in the middle of a puddle", "the puddle"},
                         {"deep in the sand", "the sand"},
                         {"in a block of ice", "the ice"}}};

  table(Kind::kTool) = {
      "a tool",
      {""},
      {{"ladder"}, {"rope"}, {"feather"}, {"key"}, {"broom"}, {"net"}, {"shovel"}, {"candle"}}};

  table(Kind::kGlad) = {"a good feeling", {""}, {{"happy"}, {"glad"}, {"proud"}, {"delighted"}}};
  table(Kind::kSad) = {"a bad feeling", {""}, {{"sad"}, {"cross"}, {"gloomy"}, {"grumpy"}}};
  return tables;
}

}  // namespace

const Table& lexicon(Kind kind) {
  static const Tables tables = make_tables();
  return tables[static_cast<std::size_t>(kind)];
}

}  // namespace llm
